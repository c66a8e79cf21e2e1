//! Public keys as a JWK Set has them (RFC 7517): those that can verify a signature here, and nothing else of the set.
//!
//! A key fits one kind of algorithm by what it is, and the one that it names for itself, if it names one. Symmetric keys are
//! not taken: with them HS256 and a public key for a secret would come.

use std::fmt;
use std::path::Path;

use aws_lc_rs::signature::{self, ParsedPublicKey, RsaParameters, RsaPublicKeyComponents, VerificationAlgorithm};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;

use super::Unusable;
use super::htpasswd::digest_of;
use super::json::{Json, Map, object};

/// Sets of those who sign tokens have two to ten.
const MOST_KEYS: usize = 100;
/// Bytes of a key's name.
pub(super) const LONGEST_ID: usize = 256;

macro_rules! algorithms {
    ($($(#[$doc:meta])* $variant:ident = $name:literal;)*) => {
        /// How a token may be signed (RFC 7518, 3.1; RFC 8037): with a private key, always.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Algorithm { $($(#[$doc])* $variant,)* }

        impl Algorithm {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The name in `alg`.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }
    };
}

algorithms! {
    /// RSA, PKCS #1 v1.5, SHA-256.
    Rs256 = "RS256";
    /// RSA, PKCS #1 v1.5, SHA-384.
    Rs384 = "RS384";
    /// RSA, PKCS #1 v1.5, SHA-512.
    Rs512 = "RS512";
    /// RSA, PSS, SHA-256.
    Ps256 = "PS256";
    /// RSA, PSS, SHA-384.
    Ps384 = "PS384";
    /// RSA, PSS, SHA-512.
    Ps512 = "PS512";
    /// ECDSA, P-256, SHA-256.
    Es256 = "ES256";
    /// ECDSA, P-384, SHA-384.
    Es384 = "ES384";
    /// ECDSA, P-521, SHA-512.
    Es512 = "ES512";
    /// Ed25519.
    EdDsa = "EdDSA";
}

impl Algorithm {
    /// By its name, which is compared to the letter.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|algorithm| algorithm.as_str() == name)
    }

    /// How RSA goes with it; `None` for the others.
    fn rsa(self) -> Option<&'static RsaParameters> {
        match self {
            Self::Rs256 => Some(&signature::RSA_PKCS1_2048_8192_SHA256),
            Self::Rs384 => Some(&signature::RSA_PKCS1_2048_8192_SHA384),
            Self::Rs512 => Some(&signature::RSA_PKCS1_2048_8192_SHA512),
            Self::Ps256 => Some(&signature::RSA_PSS_2048_8192_SHA256),
            Self::Ps384 => Some(&signature::RSA_PSS_2048_8192_SHA384),
            Self::Ps512 => Some(&signature::RSA_PSS_2048_8192_SHA512),
            Self::Es256 | Self::Es384 | Self::Es512 | Self::EdDsa => None,
        }
    }

    /// Bytes of a signature; `None`: as many as the key has.
    fn signature_length(self) -> Option<usize> {
        match self {
            Self::Es256 | Self::EdDsa => Some(64),
            Self::Es384 => Some(96),
            Self::Es512 => Some(132),
            _ => None,
        }
    }
}

/// One public key.
pub struct Key {
    id: Option<Box<str>>,
    /// The only algorithm that it may be used with, where it names one.
    only: Option<Algorithm>,
    material: Material,
}

enum Material {
    Rsa(RsaPublicKeyComponents<Vec<u8>>),
    /// A key that fits one algorithm alone.
    Curve(Algorithm, ParsedPublicKey),
}

impl Key {
    /// Its name in the set.
    #[must_use]
    pub fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    /// Whether a signature of this algorithm can be one of this key.
    #[must_use]
    pub fn fits(&self, algorithm: Algorithm) -> bool {
        let is_of_its_kind = match &self.material {
            Material::Rsa(_) => algorithm.rsa().is_some(),
            Material::Curve(own, _) => *own == algorithm,
        };
        is_of_its_kind && self.only.is_none_or(|only| only == algorithm)
    }

    /// Whether the signature is of this message and this key.
    #[must_use]
    pub fn has_signed(&self, algorithm: Algorithm, message: &[u8], signature: &[u8]) -> bool {
        if !self.fits(algorithm) || algorithm.signature_length().is_some_and(|length| length != signature.len()) {
            return false;
        }
        match (&self.material, algorithm.rsa()) {
            (Material::Rsa(key), Some(parameters)) => key.verify(parameters, message, signature).is_ok(),
            (Material::Curve(_, key), _) => key.verify_sig(message, signature).is_ok(),
            (Material::Rsa(_), None) => false,
        }
    }
}

/// The keys of a set that can be used here. Never empty.
pub struct KeySet {
    keys: Vec<Key>,
    /// Keys of the set that are of no use here, and why: for the log.
    left_out: Vec<&'static str>,
    digest: [u8; 32],
}

impl KeySet {
    /// Reads a set. `place` is for messages.
    ///
    /// # Errors
    /// Why it is no set, or has no key that can be used. A single key that cannot be used is left out (RFC 7517, 5).
    pub fn parse(bytes: &[u8], place: &dyn fmt::Display) -> Result<Self, Unusable> {
        const FORM: &str =
            "a JWK Set is JSON like {\"keys\": [{\"kty\": \"RSA\", \"kid\": \"1\", \"n\": \"...\", \"e\": \"AQAB\"}]}";
        let fault = |what: String| Unusable::new(format!("{place} {what}"), FORM);
        let set = object(bytes).map_err(|error| fault(format!("is no JWK Set: {error}")))?;
        let Some(Json::List(entries)) = set.get("keys") else {
            return Err(fault("is no JWK Set: it has no list called `keys`".into()));
        };
        if entries.len() > MOST_KEYS {
            return Err(fault(format!("has {} keys; {MOST_KEYS} are the most", entries.len())));
        }
        let mut left_out = Vec::new();
        let mut keys = Vec::new();
        for entry in entries {
            let Json::Map(entry) = entry else { return Err(fault("is no JWK Set: a key in it is no object".into())) };
            match key(entry) {
                Ok(key) => keys.push(key),
                Err(why) => left_out.push(why),
            }
        }
        if keys.is_empty() {
            let why = left_out.first().map_or(String::new(), |why| format!(": {why}"));
            return Err(fault(format!("has no key that a signature can be verified with{why}")));
        }
        Ok(Self { keys, left_out, digest: digest_of(bytes) })
    }

    /// Reads a set from a file. Blocks.
    ///
    /// # Errors
    /// Why it cannot be used.
    pub fn read(path: &Path) -> Result<Self, Unusable> {
        let contents = super::read(path, "the keys")?;
        Self::parse(&contents.bytes, &path.display())
    }

    /// Its keys.
    #[must_use]
    pub fn keys(&self) -> &[Key] {
        &self.keys
    }

    /// Why some keys of the set are not among them.
    #[must_use]
    pub fn left_out(&self) -> &[&'static str] {
        &self.left_out
    }
}

/// By what the documents said.
impl PartialEq for KeySet {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest
    }
}

impl fmt::Debug for KeySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.keys.iter().map(Key::id)).finish()
    }
}

/// Reads a key, or says why it is of no use here.
fn key(entry: &Map) -> Result<Key, &'static str> {
    let text = |name: &str| match entry.get(name) {
        None => Ok(None),
        Some(Json::Text(text)) => Ok(Some(text.as_str())),
        Some(_) => Err("a member that is not text"),
    };
    if text("use")?.is_some_and(|usage| usage != "sig") {
        return Err("its `use` is not sig");
    }
    match entry.get("key_ops") {
        None => {}
        Some(Json::List(uses)) if uses.iter().any(|usage| usage.text() == Some("verify")) => {}
        Some(_) => return Err("its `key_ops` do not have verify"),
    }
    // Whoever publishes a private key has given it away.
    if entry.contains_key("d") {
        return Err("a private key");
    }
    let id = text("kid")?;
    if id.is_some_and(|id| id.len() > LONGEST_ID) {
        return Err("its `kid` is too long");
    }
    let only = match text("alg")? {
        None => None,
        Some(name) => Some(Algorithm::named(name).ok_or("its `alg` is none that is taken")?),
    };
    let bytes = |name: &str| {
        let text = text(name)?.ok_or("a member is missing")?;
        BASE64_URL_SAFE_NO_PAD.decode(text).map_err(|_| "a member that is not base64url")
    };
    let material = match text("kty")? {
        Some("RSA") => rsa(bytes("n")?, bytes("e")?)?,
        Some("EC") => curve(text("crv")?, &bytes("x")?, &bytes("y")?)?,
        Some("OKP") if text("crv")? == Some("Ed25519") => parsed(Algorithm::EdDsa, &signature::ED25519, &bytes("x")?)?,
        Some("OKP") => return Err("its `crv` is not Ed25519"),
        Some("oct") => return Err("a symmetric key"),
        Some(_) => return Err("its `kty` is not RSA, EC or OKP"),
        None => return Err("it has no `kty`"),
    };
    let key = Key { id: id.map(Box::from), only, material };
    if only.is_some_and(|only| !key.fits(only)) {
        return Err("its `alg` does not go with its `kty`");
    }
    Ok(key)
}

/// 2048 to 8192 bits, and an exponent as they are in use: odd, 3 to 2^32.
fn rsa(n: Vec<u8>, e: Vec<u8>) -> Result<Material, &'static str> {
    const WEAK: &str = "RSA of less than 2048 bits";
    let bits = match n.first() {
        None | Some(0) => return Err("its `n` does not begin with its first digit"),
        Some(first) => n.len() * 8 - first.leading_zeros() as usize,
    };
    if bits < 2048 {
        return Err(WEAK);
    }
    if bits > 8192 {
        return Err("RSA of more than 8192 bits");
    }
    let is_sane = matches!(e.as_slice(), [first, .., last] if *first != 0 && last % 2 == 1 && e.len() <= 4)
        || matches!(e.as_slice(), [only] if *only >= 3 && only % 2 == 1);
    let key = RsaPublicKeyComponents { n, e };
    // Whether the library takes it is found now, and not with the first token.
    if !is_sane || key.to_parsed_public_key(&signature::RSA_PKCS1_2048_8192_SHA256).is_err() {
        return Err("an RSA key that cannot be used");
    }
    Ok(Material::Rsa(key))
}

/// A point on a curve of NIST's: both coordinates in full length (RFC 7518, 6.2.1.2).
fn curve(name: Option<&str>, x: &[u8], y: &[u8]) -> Result<Material, &'static str> {
    let (algorithm, verification, length): (_, &'static dyn VerificationAlgorithm, _) = match name {
        Some("P-256") => (Algorithm::Es256, &signature::ECDSA_P256_SHA256_FIXED, 32),
        Some("P-384") => (Algorithm::Es384, &signature::ECDSA_P384_SHA384_FIXED, 48),
        Some("P-521") => (Algorithm::Es512, &signature::ECDSA_P521_SHA512_FIXED, 66),
        _ => return Err("its `crv` is not P-256, P-384 or P-521"),
    };
    if x.len() != length || y.len() != length {
        return Err("coordinates that are not as long as its curve's");
    }
    parsed(algorithm, verification, &[&[4], x, y].concat())
}

fn parsed(
    algorithm: Algorithm,
    verification: &'static dyn VerificationAlgorithm,
    bytes: &[u8],
) -> Result<Material, &'static str> {
    // Else a whole document of another form would be taken, too.
    if algorithm == Algorithm::EdDsa && bytes.len() != 32 {
        return Err("an Ed25519 key that does not have 32 bytes");
    }
    let key = ParsedPublicKey::new(verification, bytes).map_err(|_| "a key that is no point on its curve")?;
    Ok(Material::Curve(algorithm, key))
}
