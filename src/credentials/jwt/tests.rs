//! The suite of tokens: each row is a token, and what it must come to.

use std::fmt::Write as _;
use std::sync::OnceLock;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    self, EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair as _, RsaEncoding, RsaKeyPair,
};
use aws_lc_rs::{hmac, rsa};
use proptest::prelude::*;

use super::*;

/// When the suite is read.
const NOW: u64 = 1_800_000_000;
const CLAIMS: &str = r#"{"iss":"https://login.example","aud":"shop","sub":"ann","exp":1800000600}"#;

/// An RSA key of 1024 bits, and a token of it that is good otherwise: made with openssl, because the library makes none.
const WEAK_MODULUS: &str = "4K8jzsyCTlUA8heSH1bQHbXWENwB3ila9aVA-lBecIu7LbmEuLJl3qsbvu_4bHz54VRCdNsq4580DGhpajHr2Iab_vTbAdsiaAfmlmXAwEt7Vwz_eyLX_Eie5wlEw05nP_Q9xd7UIvqQ2FRdbFa-WBWy9LBlJHWrFR9PmsfOAOM";
const WEAK_TOKEN: &str = "eyJhbGciOiJSUzI1NiIsImtpZCI6IndlYWsifQ.eyJpc3MiOiJodHRwczovL2xvZ2luLmV4YW1wbGUiLCJhdWQiOiJzaG9wIiwic3ViIjoiYW5uIiwiZXhwIjoxODAwMDAwNjAwfQ.k7Na8hg7K0VIcMC6TI_TsLfC2-cGlqbwy4BC_6D0gzYgj3SWO7dZ235wgupk8-x7WiG-tPHwBdcwP9E7Ky94W6t9sP8fsl6agRGhgWjr_RQmvZLZ5fkzG3iyCzVMeOQkFBmeG3jBbxenvtdx81ULT-CW7Uf9CeQdqwNg70NjN94";

/// Those who sign.
struct Signers {
    rsa: RsaKeyPair,
    /// Somebody else's.
    other_rsa: RsaKeyPair,
    p256: EcdsaKeyPair,
    p384: EcdsaKeyPair,
    p521: EcdsaKeyPair,
    ed25519: Ed25519KeyPair,
}

fn signers() -> &'static Signers {
    static SIGNERS: OnceLock<Signers> = OnceLock::new();
    SIGNERS.get_or_init(|| {
        let rsa = || RsaKeyPair::generate(rsa::KeySize::Rsa2048).unwrap();
        let curve = |algorithm: &'static EcdsaSigningAlgorithm| EcdsaKeyPair::generate(algorithm).unwrap();
        Signers {
            rsa: rsa(),
            other_rsa: rsa(),
            p256: curve(&signature::ECDSA_P256_SHA256_FIXED_SIGNING),
            p384: curve(&signature::ECDSA_P384_SHA384_FIXED_SIGNING),
            p521: curve(&signature::ECDSA_P521_SHA512_FIXED_SIGNING),
            ed25519: Ed25519KeyPair::generate().unwrap(),
        }
    })
}

impl Signers {
    fn rsa(&self, padding: &'static dyn RsaEncoding, message: &[u8]) -> Vec<u8> {
        sign_rsa(&self.rsa, padding, message)
    }
}

fn sign_rsa(key: &RsaKeyPair, padding: &'static dyn RsaEncoding, message: &[u8]) -> Vec<u8> {
    let mut signature = vec![0; key.public_modulus_len()];
    key.sign(padding, &SystemRandom::new(), message, &mut signature).unwrap();
    signature
}

fn sign_curve(key: &EcdsaKeyPair, message: &[u8]) -> Vec<u8> {
    key.sign(&SystemRandom::new(), message).unwrap().as_ref().to_vec()
}

fn rs256(message: &[u8]) -> Vec<u8> {
    signers().rsa(&signature::RSA_PKCS1_SHA256, message)
}

fn es256(message: &[u8]) -> Vec<u8> {
    sign_curve(&signers().p256, message)
}

fn base64(bytes: impl AsRef<[u8]>) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

/// A token with this header and these claims, whatever they are.
fn token(header: &str, claims: &str, sign: impl Fn(&[u8]) -> Vec<u8>) -> String {
    let message = format!("{}.{}", base64(header), base64(claims));
    let signature = sign(message.as_bytes());
    format!("{message}.{}", base64(signature))
}

/// The modulus out of the key's PKCS #1 form: a sequence whose first number has a zero before 256 bytes.
fn modulus(key: &RsaKeyPair) -> &[u8] {
    &key.public_key().as_ref()[9..265]
}

fn jwk_of_curve(id: &str, curve: &str, key: &EcdsaKeyPair) -> String {
    let point = key.public_key().as_ref();
    let (x, y) = point[1..].split_at((point.len() - 1) / 2);
    format!(r#"{{"kty":"EC","kid":"{id}","crv":"{curve}","x":"{}","y":"{}"}}"#, base64(x), base64(y))
}

/// The set that the suite is verified with.
fn jwks() -> String {
    let all = signers();
    let n = base64(modulus(&all.rsa));
    let mut set = String::from(r#"{"keys":["#);
    let mut add = |key: &str| {
        let comma = if set.ends_with('[') { "" } else { "," };
        write!(set, "{comma}{key}").unwrap();
    };
    add(&format!(r#"{{"kty":"RSA","kid":"rsa","n":"{n}","e":"AQAB"}}"#));
    add(&format!(r#"{{"kty":"RSA","kid":"pinned","alg":"PS256","n":"{n}","e":"AQAB"}}"#));
    add(&format!(r#"{{"kty":"RSA","kid":"enc","use":"enc","n":"{n}","e":"AQAB"}}"#));
    add(&format!(r#"{{"kty":"RSA","kid":"weak","n":"{WEAK_MODULUS}","e":"AQAB"}}"#));
    add(&format!(r#"{{"kty":"oct","kid":"oct","k":"{}"}}"#, base64("secret")));
    add(&jwk_of_curve("p256", "P-256", &all.p256));
    add(&jwk_of_curve("p384", "P-384", &all.p384));
    add(&jwk_of_curve("p521", "P-521", &all.p521));
    let x = base64(all.ed25519.public_key().as_ref());
    add(&format!(r#"{{"kty":"OKP","kid":"ed","crv":"Ed25519","x":"{x}","use":"sig","key_ops":["verify"]}}"#));
    set + "]}"
}

fn keys() -> KeySet {
    KeySet::parse(jwks().as_bytes(), &"the set").unwrap()
}

/// All algorithms but the two that one row each is refused for.
fn expected() -> Expected {
    let unpinned = [Algorithm::Rs512, Algorithm::Es384];
    Expected {
        algorithms: Algorithm::ALL.iter().copied().filter(|algorithm| !unpinned.contains(algorithm)).collect(),
        issuer: "https://login.example".into(),
        audience: vec!["shop".into(), "store".into()],
        leeway: Duration::from_secs(30),
    }
}

fn verdict(token: impl AsRef<[u8]>) -> Result<Claims, Refusal> {
    let expected = expected();
    Unverified::parse(token.as_ref(), &expected)?.verify(&keys(), &expected, Duration::from_secs(NOW))
}

/// Tokens that differ in the claims alone.
fn with_claims(claims: &str) -> String {
    token(r#"{"alg":"ES256","kid":"p256"}"#, claims, es256)
}

fn with_header(header: &str) -> String {
    token(header, CLAIMS, rs256)
}

type Row = (&'static str, String, Result<(), Refusal>);

fn good_tokens() -> Vec<Row> {
    let all = signers();
    let by =
        |name: &'static str, header: &str, sign: &dyn Fn(&[u8]) -> Vec<u8>| (name, token(header, CLAIMS, sign), Ok(()));
    vec![
        by("RS256", r#"{"alg":"RS256","kid":"rsa","typ":"JWT"}"#, &rs256),
        by("RS384", r#"{"alg":"RS384","kid":"rsa"}"#, &|m| all.rsa(&signature::RSA_PKCS1_SHA384, m)),
        by("PS256", r#"{"alg":"PS256","kid":"rsa"}"#, &|m| all.rsa(&signature::RSA_PSS_SHA256, m)),
        by("PS384", r#"{"alg":"PS384","kid":"rsa"}"#, &|m| all.rsa(&signature::RSA_PSS_SHA384, m)),
        by("PS512", r#"{"alg":"PS512","kid":"rsa"}"#, &|m| all.rsa(&signature::RSA_PSS_SHA512, m)),
        by("a key that names its algorithm", r#"{"alg":"PS256","kid":"pinned"}"#, &|m| {
            all.rsa(&signature::RSA_PSS_SHA256, m)
        }),
        by("ES256", r#"{"alg":"ES256","kid":"p256"}"#, &es256),
        by("ES512", r#"{"alg":"ES512","kid":"p521"}"#, &|m| sign_curve(&all.p521, m)),
        by("EdDSA", r#"{"alg":"EdDSA","kid":"ed"}"#, &|m| all.ed25519.sign(m).as_ref().to_vec()),
        by("no kid: every key that fits", r#"{"alg":"RS256"}"#, &rs256),
        by("an access token", r#"{"alg":"RS256","typ":"at+jwt"}"#, &rs256),
        by("typ in full", r#"{"alg":"RS256","typ":"application/AT+JWT"}"#, &rs256),
        by(
            "what the header says beside it is not looked at",
            r#"{"alg":"RS256","jku":"https://evil.example/","x":1}"#,
            &rs256,
        ),
    ]
}

fn bad_algorithms() -> Vec<Row> {
    let all = signers();
    let public = all.rsa.public_key().as_ref();
    let hmac = |secret: &[u8], message: &[u8]| {
        hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), message).as_ref().to_vec()
    };
    let refused = Err(Refusal::Algorithm);
    let mut rows = vec![
        ("HS256 with the public key", token(r#"{"alg":"HS256","kid":"rsa"}"#, CLAIMS, |m| hmac(public, m)), refused),
        (
            "HS256 with the modulus",
            token(r#"{"alg":"HS256","kid":"rsa"}"#, CLAIMS, |m| hmac(modulus(&all.rsa), m)),
            refused,
        ),
        (
            "HS256 with the key of the set",
            token(r#"{"alg":"HS256","kid":"oct"}"#, CLAIMS, |m| hmac(b"secret", m)),
            refused,
        ),
        ("HS256 with nothing", token(r#"{"alg":"HS256"}"#, CLAIMS, |m| hmac(b"", m)), refused),
        (
            "an algorithm that is not pinned",
            token(r#"{"alg":"RS512","kid":"rsa"}"#, CLAIMS, |m| all.rsa(&signature::RSA_PKCS1_SHA512, m)),
            refused,
        ),
        (
            "another that is not pinned",
            token(r#"{"alg":"ES384","kid":"p384"}"#, CLAIMS, |m| sign_curve(&all.p384, m)),
            refused,
        ),
    ];
    for (name, header) in [
        ("alg none, signed", r#"{"alg":"none"}"#),
        ("alg None", r#"{"alg":"None"}"#),
        ("alg NONE", r#"{"alg":"NONE"}"#),
        ("alg nOnE", r#"{"alg":"nOnE"}"#),
        ("alg empty", r#"{"alg":""}"#),
        ("alg in lower case", r#"{"alg":"rs256"}"#),
        ("alg with a space", r#"{"alg":"RS256 "}"#),
        ("no alg", r#"{"kid":"rsa"}"#),
        ("alg null", r#"{"alg":null}"#),
        ("alg a list", r#"{"alg":["RS256"]}"#),
        ("alg a number", r#"{"alg":256}"#),
    ] {
        rows.push((name, with_header(header), refused));
    }
    let none = format!("{}.{}.", base64(r#"{"alg":"none"}"#), base64(CLAIMS));
    rows.push(("alg none without a signature", none, refused));
    // The algorithm is pinned, and the key is of another.
    let unknown = Err(Refusal::UnknownKey);
    rows.extend([
        ("RS256 with the name of a curve's key", token(r#"{"alg":"RS256","kid":"p256"}"#, CLAIMS, es256), unknown),
        ("ES256 with the name of an RSA key", token(r#"{"alg":"ES256","kid":"rsa"}"#, CLAIMS, rs256), unknown),
        ("RS256 with a key that is for PS256", with_header(r#"{"alg":"RS256","kid":"pinned"}"#), unknown),
        ("a key that is for encryption", with_header(r#"{"alg":"RS256","kid":"enc"}"#), unknown),
        ("RSA of 1024 bits", WEAK_TOKEN.into(), unknown),
        ("a symmetric key by name", with_header(r#"{"alg":"RS256","kid":"oct"}"#), unknown),
        (
            "ES256 with a key of P-384",
            token(r#"{"alg":"ES256","kid":"p384"}"#, CLAIMS, |m| sign_curve(&all.p384, m)),
            unknown,
        ),
        ("EdDSA with the name of an RSA key", with_header(r#"{"alg":"EdDSA","kid":"rsa"}"#), unknown),
    ]);
    rows
}

fn bad_keys_and_kinds() -> Vec<Row> {
    let all = signers();
    let other = |message: &[u8]| sign_rsa(&all.other_rsa, &signature::RSA_PKCS1_SHA256, message);
    let embedded = format!(
        r#"{{"alg":"RS256","kid":"rsa","jwk":{{"kty":"RSA","n":"{}","e":"AQAB"}}}}"#,
        base64(modulus(&all.other_rsa))
    );
    let long = format!(r#"{{"alg":"RS256","kid":"{}"}}"#, "k".repeat(LONGEST_ID + 1));
    let mut rows = vec![
        ("somebody else's key", token(r#"{"alg":"RS256","kid":"rsa"}"#, CLAIMS, other), Err(Refusal::Signature)),
        ("the key that it brings itself", token(&embedded, CLAIMS, other), Err(Refusal::Signature)),
        ("somebody else's key, by no name", token(r#"{"alg":"RS256"}"#, CLAIMS, other), Err(Refusal::Signature)),
        ("a kid that is too long", with_header(&long), Err(Refusal::UnknownKey)),
    ];
    for (name, header) in [
        ("a kid that nobody has", r#"{"alg":"RS256","kid":"x"}"#),
        ("a kid in other letters", r#"{"alg":"RS256","kid":"RSA"}"#),
        ("a kid that is a path", r#"{"alg":"RS256","kid":"../../../../dev/null"}"#),
        ("a kid that is SQL", r#"{"alg":"RS256","kid":"x' UNION SELECT 'key' -- "}"#),
        ("a kid that is a command", r#"{"alg":"RS256","kid":"rsa|id"}"#),
        ("a kid with a NUL", r#"{"alg":"RS256","kid":"rsa\u0000"}"#),
        ("a kid that is a URL", r#"{"alg":"RS256","kid":"https://evil.example/jwks.json"}"#),
        ("an empty kid", r#"{"alg":"RS256","kid":""}"#),
        ("kid null", r#"{"alg":"RS256","kid":null}"#),
        ("kid a number", r#"{"alg":"RS256","kid":1}"#),
        ("kid a list", r#"{"alg":"RS256","kid":["rsa"]}"#),
    ] {
        rows.push((name, with_header(header), Err(Refusal::UnknownKey)));
    }
    for (name, header) in [
        ("crit of something", r#"{"alg":"RS256","kid":"rsa","crit":["exp"],"exp":1}"#),
        ("crit of nothing", r#"{"alg":"RS256","kid":"rsa","crit":[]}"#),
        ("b64", r#"{"alg":"RS256","kid":"rsa","b64":false}"#),
        ("a token within", r#"{"alg":"RS256","kid":"rsa","cty":"JWT"}"#),
        ("a logout token", r#"{"alg":"RS256","kid":"rsa","typ":"logout+jwt"}"#),
        ("a proof of possession", r#"{"alg":"RS256","kid":"rsa","typ":"dpop+jwt"}"#),
        ("typ of nothing", r#"{"alg":"RS256","kid":"rsa","typ":""}"#),
        ("typ a number", r#"{"alg":"RS256","kid":"rsa","typ":1}"#),
        ("an encrypted one's field", r#"{"alg":"RS256","kid":"rsa","enc":"A128GCM"}"#),
    ] {
        rows.push((name, with_header(header), Err(Refusal::Kind)));
    }
    rows
}

fn bad_signatures() -> Vec<Row> {
    let all = signers();
    let rsa = r#"{"alg":"RS256","kid":"rsa"}"#;
    let p256 = r#"{"alg":"ES256","kid":"p256"}"#;
    let good = token(rsa, CLAIMS, rs256);
    let (message, signature) = good.rsplit_once('.').unwrap();
    let other_claims = format!("{}.{}.{signature}", base64(rsa), base64(CLAIMS.replace("ann", "bob")));
    let other_header = format!("{}.{}.{signature}", base64(r#"{"alg":"RS256","kid":"rsa","x":1}"#), base64(CLAIMS));
    let refused = Err(Refusal::Signature);
    let der = |message: &[u8]| {
        let (_, rest) = (0, sign_curve(&all.p256, message));
        let (r, s) = rest.split_at(32);
        let number = |digits: &[u8]| [&[2, 33, 0], digits].concat();
        let body = [number(r), number(s)].concat();
        [&[0x30, body.len() as u8], body.as_slice()].concat()
    };
    vec![
        ("another's claims", other_claims, refused),
        ("another header", other_header, refused),
        (
            "one bit of the signature",
            token(rsa, CLAIMS, |m| {
                let mut s = rs256(m);
                s[7] ^= 1;
                s
            }),
            refused,
        ),
        ("a signature of zeros", token(rsa, CLAIMS, |_| vec![0; 256]), refused),
        ("a signature of nothing but a byte", token(rsa, CLAIMS, |_| vec![1]), refused),
        ("a byte too many", token(rsa, CLAIMS, |m| [rs256(m), vec![0]].concat()), refused),
        ("a byte too few", token(rsa, CLAIMS, |m| rs256(m)[1..].to_vec()), refused),
        ("PSS under the name of RS256", token(rsa, CLAIMS, |m| all.rsa(&signature::RSA_PSS_SHA256, m)), refused),
        ("PKCS #1 under the name of PS256", token(r#"{"alg":"PS256","kid":"rsa"}"#, CLAIMS, rs256), refused),
        ("SHA-512 under the name of RS256", token(rsa, CLAIMS, |m| all.rsa(&signature::RSA_PKCS1_SHA512, m)), refused),
        ("ES256 of zeros (CVE-2022-21449)", token(p256, CLAIMS, |_| vec![0; 64]), refused),
        ("ES256 of ones", token(p256, CLAIMS, |_| [[0_u8; 31].as_slice(), &[1], &[0; 31], &[1]].concat()), refused),
        ("ES256 of 63 bytes", token(p256, CLAIMS, |m| es256(m)[..63].to_vec()), refused),
        ("ES256 of 65 bytes", token(p256, CLAIMS, |m| [es256(m), vec![0]].concat()), refused),
        ("ES256 of 96 bytes", token(p256, CLAIMS, |m| sign_curve(&all.p384, m)), refused),
        ("ES256 as DER", token(p256, CLAIMS, der), refused),
        ("EdDSA of zeros", token(r#"{"alg":"EdDSA","kid":"ed"}"#, CLAIMS, |_| vec![0; 64]), refused),
        (
            "EdDSA of 63 bytes",
            token(r#"{"alg":"EdDSA","kid":"ed"}"#, CLAIMS, |m| all.ed25519.sign(m).as_ref()[..63].to_vec()),
            refused,
        ),
        ("no signature", format!("{message}."), Err(Refusal::Malformed)),
        ("no signature and no dot", message.to_owned(), Err(Refusal::Malformed)),
    ]
}

fn malformed() -> Vec<Row> {
    let good = token(r#"{"alg":"RS256","kid":"rsa"}"#, CLAIMS, rs256);
    let (message, signature) = good.rsplit_once('.').unwrap();
    let (header, claims) = message.split_once('.').unwrap();
    // 256 bytes leave four bits over, which the last letter has as zeros.
    let last = signature.chars().last().unwrap();
    let loose = char::from(if last == 'Q' { b'R' } else { last as u8 + 1 });
    let loose = format!("{message}.{}{loose}", &signature[..signature.len() - 1]);
    let huge = token(r#"{"alg":"RS256","kid":"rsa"}"#, &CLAIMS.replace("ann", &"a".repeat(LONGEST)), rs256);
    let refused = Err(Refusal::Malformed);
    let mut rows = vec![
        ("huge", huge, Err(Refusal::TooLong)),
        ("bits that nobody looks at", loose, refused),
        ("padding", format!("{message}.{signature}=="), refused),
        ("padding of the header", format!("{header}=.{claims}.{signature}"), refused),
        ("a dot more at the end", format!("{good}."), refused),
        ("a dot more at the beginning", format!(".{good}"), refused),
        ("a part more", format!("{good}.{signature}"), refused),
        ("five parts, as an encrypted one has", format!("{good}.a.b"), refused),
        ("no header", format!(".{claims}.{signature}"), refused),
        ("one part", header.to_owned(), refused),
        ("nothing", String::new(), refused),
        ("dots", "..".into(), refused),
        ("the other alphabet", format!("{header}.{claims}.+/{}", &signature[2..]), refused),
        ("a space", format!("{header} .{claims}.{signature}"), refused),
        ("a space before the claims", format!("{header}. {claims}.{signature}"), Err(Refusal::Signature)),
        ("a line end", format!("{good}\n"), refused),
        ("cut in the claims", good[..header.len() + 9].to_owned(), refused),
        ("cut in the signature", format!("{message}.{}", &signature[..200]), Err(Refusal::Signature)),
        ("letters that are none", format!("{header}.{claims}.é"), refused),
        ("a header that is no JSON", with_header("alg=RS256"), refused),
        ("a header that is a list", with_header(r#"["RS256"]"#), refused),
        ("a header twice", with_header(r#"{"alg":"RS256"}{"alg":"RS256"}"#), refused),
        ("alg twice", with_header(r#"{"alg":"RS256","alg":"none"}"#), refused),
        ("kid twice", with_header(r#"{"alg":"RS256","kid":"rsa","kid":"x"}"#), refused),
    ];
    for (name, claims) in [
        ("claims that are no JSON", "sub=ann"),
        ("claims that are text", r#""ann""#),
        ("sub twice", r#"{"iss":"https://login.example","aud":"shop","sub":"ann","sub":"root","exp":1800000600}"#),
        (
            "a name twice within a claim",
            r#"{"iss":"https://login.example","aud":"shop","exp":1800000600,"a":{"b":1,"b":2}}"#,
        ),
    ] {
        rows.push((name, with_claims(claims), refused));
    }
    rows
}

fn claims_of_all_kinds() -> Vec<Row> {
    let of = |rest: &str| with_claims(&format!(r#"{{"iss":"https://login.example","sub":"ann",{rest}}}"#));
    let issued = |issuer: &str| with_claims(&format!(r#"{{{issuer}"aud":"shop","exp":1800000600}}"#));
    vec![
        ("expired within the leeway", of(r#""aud":"shop","exp":1799999971"#), Ok(())),
        ("expired by a second more", of(r#""aud":"shop","exp":1799999970"#), Err(Refusal::Expired)),
        ("expired long ago", of(r#""aud":"shop","exp":0"#), Err(Refusal::Expired)),
        ("expires with a fraction", of(r#""aud":"shop","exp":1800000000.5"#), Ok(())),
        ("no exp", of(r#""aud":"shop""#), Err(Refusal::Claims)),
        ("exp null", of(r#""aud":"shop","exp":null"#), Err(Refusal::Claims)),
        ("exp a text", of(r#""aud":"shop","exp":"1800000600""#), Err(Refusal::Claims)),
        ("exp negative", of(r#""aud":"shop","exp":-1"#), Err(Refusal::Claims)),
        ("exp in a year that has no name", of(r#""aud":"shop","exp":1e300"#), Ok(())),
        ("exp that is no number at all", of(r#""aud":"shop","exp":1e999"#), Err(Refusal::Malformed)),
        ("not before, within the leeway", of(r#""aud":"shop","exp":1800000600,"nbf":1800000030"#), Ok(())),
        ("not yet", of(r#""aud":"shop","exp":1800000600,"nbf":1800000031"#), Err(Refusal::NotYet)),
        ("nbf a text", of(r#""aud":"shop","exp":1800000600,"nbf":"0""#), Err(Refusal::Claims)),
        ("made in the future", of(r#""aud":"shop","exp":1800000600,"iat":1800000031"#), Err(Refusal::NotYet)),
        ("made long ago", of(r#""aud":"shop","exp":1800000600,"iat":1"#), Ok(())),
        ("another audience", of(r#""aud":"bank","exp":1800000600"#), Err(Refusal::Audience)),
        ("an audience in other letters", of(r#""aud":"Shop","exp":1800000600"#), Err(Refusal::Audience)),
        ("an audience that begins alike", of(r#""aud":"shop.evil.example","exp":1800000600"#), Err(Refusal::Audience)),
        ("no audience", of(r#""exp":1800000600"#), Err(Refusal::Audience)),
        ("an empty audience", of(r#""aud":"","exp":1800000600"#), Err(Refusal::Audience)),
        ("an audience of nobody", of(r#""aud":[],"exp":1800000600"#), Err(Refusal::Audience)),
        ("among others", of(r#""aud":["bank","store"],"exp":1800000600"#), Ok(())),
        ("among others that are not us", of(r#""aud":["bank","shops"],"exp":1800000600"#), Err(Refusal::Audience)),
        ("an audience that is an object", of(r#""aud":{"shop":true},"exp":1800000600"#), Err(Refusal::Audience)),
        ("no issuer", issued(""), Err(Refusal::Issuer)),
        ("another issuer", issued(r#""iss":"https://evil.example","#), Err(Refusal::Issuer)),
        ("an issuer with a slash", issued(r#""iss":"https://login.example/","#), Err(Refusal::Issuer)),
        ("an issuer that begins alike", issued(r#""iss":"https://login.example.evil.example","#), Err(Refusal::Issuer)),
        ("a list of issuers", issued(r#""iss":["https://login.example"],"#), Err(Refusal::Issuer)),
    ]
}

#[test]
fn every_token_of_the_suite_comes_to_its_verdict() {
    let rows: Vec<Row> =
        [good_tokens(), bad_algorithms(), bad_keys_and_kinds(), bad_signatures(), malformed(), claims_of_all_kinds()]
            .concat();
    let mut names = std::collections::HashSet::new();
    let mut wrong = String::new();
    for (name, token, expected) in &rows {
        assert!(names.insert(name), "{name} twice");
        let found = verdict(token).map(|_| ());
        if found != *expected {
            writeln!(wrong, "{name}: {found:?} instead of {expected:?}: {token:.120}").unwrap();
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
    assert!(rows.len() > 100, "{}", rows.len());
}

#[test]
fn a_set_has_the_keys_that_can_verify_and_tells_why_the_others_cannot() {
    let keys = keys();
    let ids: Vec<_> = keys.keys().iter().map(|key| key.id().unwrap()).collect();
    assert_eq!(ids, ["rsa", "pinned", "p256", "p384", "p521", "ed"]);
    assert_eq!(keys.left_out(), ["its `use` is not sig", "RSA of less than 2048 bits", "a symmetric key"]);
    let told = format!("{keys:?}");
    assert!(told.contains("rsa") && !told.contains(WEAK_MODULUS), "{told}");
}

#[test]
fn what_is_no_set_of_keys_is_explained() {
    let n = base64(modulus(&signers().rsa));
    let set = |key: &str| KeySet::parse(format!(r#"{{"keys":[{key}]}}"#).as_bytes(), &"keys.json").map(|_| ());
    for (key, words) in [
        (r#"{"kty":"RSA"}"#.to_owned(), "a member is missing"),
        (format!(r#"{{"kty":"RSA","n":"{n}","e":"AQ"}}"#), "cannot be used"),
        (format!(r#"{{"kty":"RSA","n":"{n}","e":"Ag"}}"#), "cannot be used"),
        (format!(r#"{{"kty":"RSA","n":"{n}","e":"AQAA"}}"#), "cannot be used"),
        (format!(r#"{{"kty":"RSA","n":"{n}=","e":"AQAB"}}"#), "not base64url"),
        (format!(r#"{{"kty":"RSA","n":"AA{n}","e":"AQAB"}}"#), "first digit"),
        (format!(r#"{{"kty":"RSA","n":"{n}","e":"AQAB","d":"AQAB"}}"#), "a private key"),
        (format!(r#"{{"kty":"RSA","n":"{n}","e":"AQAB","alg":"HS256"}}"#), "none that is taken"),
        (format!(r#"{{"kty":"RSA","n":"{n}","e":"AQAB","alg":"ES256"}}"#), "does not go with"),
        (format!(r#"{{"kty":"RSA","n":"{n}","e":"AQAB","key_ops":["sign"]}}"#), "do not have verify"),
        (format!(r#"{{"kty":"RSA","n":"{n}","e":"AQAB","kid":1}}"#), "not text"),
        (format!(r#"{{"kty":"EC","crv":"P-256","x":"{0}","y":"{0}"}}"#, base64([1; 32])), "no point"),
        (format!(r#"{{"kty":"EC","crv":"P-256","x":"{0}","y":"{0}"}}"#, base64([0; 32])), "no point"),
        (format!(r#"{{"kty":"EC","crv":"P-256","x":"{0}","y":"{0}"}}"#, base64([1; 31])), "not as long"),
        (format!(r#"{{"kty":"EC","crv":"secp256k1","x":"{0}","y":"{0}"}}"#, base64([1; 32])), "`crv` is not"),
        (format!(r#"{{"kty":"OKP","crv":"X25519","x":"{}"}}"#, base64([1; 32])), "`crv` is not Ed25519"),
        (format!(r#"{{"kty":"OKP","crv":"Ed25519","x":"{}"}}"#, base64([1; 31])), "32 bytes"),
        (r#"{"kty":"oct","k":"c2VjcmV0"}"#.to_owned(), "symmetric"),
        (r#"{"kty":"PQC"}"#.to_owned(), "`kty` is not"),
        (r#"{"kid":"x"}"#.to_owned(), "no `kty`"),
        (r#"{"kty":"RSA","kty":"EC"}"#.to_owned(), "stands twice"),
        ("1".to_owned(), "is no object"),
    ] {
        let fault = set(&key).unwrap_err();
        assert!(fault.message.starts_with("keys.json ") && fault.message.contains(words), "{key}: {fault}");
    }
    for (text, words) in [
        ("", "is no JWK Set"),
        ("{}", "no list called `keys`"),
        (r#"{"keys":{}}"#, "no list called `keys`"),
        (r#"{"keys":[]}"#, "has no key"),
        ("<html>", "is no JWK Set"),
    ] {
        assert!(KeySet::parse(text.as_bytes(), &"x").unwrap_err().message.contains(words), "{text}");
    }
    let many = vec![r#"{"kty":"oct"}"#; 101].join(",");
    assert!(set(&many).unwrap_err().message.contains("has 101 keys"));
}

#[test]
fn a_claim_becomes_a_field_or_refuses_the_token() {
    let field = |claim: &str| {
        let claims = CLAIMS.replace(r#""sub":"ann""#, &format!(r#""c":{claim}"#));
        verdict(with_claims(&claims)).unwrap().field("c")
    };
    for (claim, text) in [
        (r#""ann""#, Some("ann")),
        (r#""Zoë""#, Some("Zoë")),
        ("42", Some("42")),
        ("true", Some("true")),
        (r#"["staff","ops"]"#, Some("staff,ops")),
        ("null", None),
        (r#""""#, None),
        ("[]", None),
    ] {
        assert_eq!(field(claim), Ok(text.map(String::from)), "{claim}");
    }
    let long = format!(r#""{}""#, "a".repeat(LONGEST_CLAIM + 1));
    for claim in [
        r#"{"a":1}"#,
        r#"["a",1]"#,
        r#"["a,b"]"#,
        r#"["a",""]"#,
        r#""a\r\nX-Admin: 1""#,
        r#""a\u0000""#,
        r#"" ann""#,
        r#""ann ""#,
        r#""a\u0085b""#,
        &long,
    ] {
        assert_eq!(field(claim), Err(Refusal::Claims), "{claim:.40}");
    }
    assert_eq!(verdict(with_claims(CLAIMS)).unwrap().field("missing"), Ok(None));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_make_it_fall(bytes in prop::collection::vec(any::<u8>(), 0..300), text in "[A-Za-z0-9_.=-]{0,200}") {
        let expected = expected();
        prop_assert!(Unverified::parse(&bytes, &expected).is_err());
        prop_assert!(Unverified::parse(text.as_bytes(), &expected).is_err());
        prop_assert!(KeySet::parse(&bytes, &"x").is_err());
    }

    #[test]
    fn whatever_is_changed_in_a_token_is_found(at: prop::sample::Index, letter in "[A-Za-z0-9_.=/+ -]") {
        static GOOD: OnceLock<String> = OnceLock::new();
        let good = GOOD.get_or_init(|| with_claims(CLAIMS));
        let at = at.index(good.len());
        let changed = format!("{}{letter}{}", &good[..at], &good[at + 1..]);
        prop_assert_eq!(verdict(&changed).is_ok(), changed == *good, "{}", changed);
    }

    #[test]
    fn a_part_of_a_token_is_none(length: prop::sample::Index) {
        static GOOD: OnceLock<String> = OnceLock::new();
        let good = GOOD.get_or_init(|| with_claims(CLAIMS));
        prop_assert!(verdict(&good[..length.index(good.len())]).is_err());
    }
}
