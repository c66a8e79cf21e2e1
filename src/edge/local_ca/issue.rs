//! Making certificates: the root, and with it those for localhost.

use std::fmt;
use std::net::Ipv6Addr;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CidrSubnet, DistinguishedName, DnType, Error,
    ExtendedKeyUsagePurpose, GeneralSubtree, IsCa, Issuer, KeyPair, KeyUsagePurpose, NameConstraints,
    PKCS_ECDSA_P256_SHA256, SanType, date_time_ymd,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::folder::Pair;
use super::{ADDRESSES, BACKDATED, CA_LIFE, LEAF_LIFE, LOCALHOST};

/// A new root.
pub(super) fn ca(now: SystemTime) -> Result<Pair, Error> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let mut params = ca_params(&key);
    limit(&mut params, now, CA_LIFE);
    let certificate = params.self_signed(&key)?;
    pair(&key, &certificate)
}

/// A certificate for localhost, signed by the root.
pub(super) fn leaf(ca: &Pair, now: SystemTime) -> Result<Pair, Error> {
    let mut params = leaf_params(LOCALHOST, now)?;
    params.subject_alt_names.extend(ADDRESSES.iter().copied().map(SanType::IpAddress));
    signed(&params, &issuer(ca)?)
}

/// Certificates for names below `localhost`, made when a client asks for one.
///
/// A wildcard cannot serve them: browsers and TLS libraries take `*.localhost` for a wildcard over a whole top-level
/// domain and refuse it.
pub struct Subdomains {
    issuer: Issuer<'static, KeyPair>,
}

impl Subdomains {
    pub(super) fn new(ca: &Pair) -> Result<Self, Error> {
        Ok(Self { issuer: issuer(ca)? })
    }

    /// A certificate for `name` and its key; `None` when the name is not below `localhost`.
    ///
    /// # Errors
    /// The crypto library refuses.
    #[must_use]
    pub fn make(&self, name: &str, now: SystemTime) -> Option<Result<Signed, Error>> {
        name.strip_suffix(LOCALHOST)?.strip_suffix('.')?;
        let pair = leaf_params(name, now).and_then(|params| signed(&params, &self.issuer));
        Some(pair.map(|pair| (pair.certificate, pair.private_key)))
    }
}

/// A certificate and its key.
pub type Signed = (CertificateDer<'static>, PrivateKeyDer<'static>);

impl fmt::Debug for Subdomains {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subdomains").finish_non_exhaustive() // no keys in logs
    }
}

fn issuer(ca: &Pair) -> Result<Issuer<'static, KeyPair>, Error> {
    let key = KeyPair::try_from(&ca.private_key)?;
    Ok(Issuer::new(ca_params(&key), key))
}

/// What a root says of itself, without its dates: follows from its key, so that it need not be read back from the file.
pub(super) fn ca_params(key: &KeyPair) -> CertificateParams {
    let mut params = CertificateParams::default();
    // Each root has a name of its own: trust stores tell old and new apart by it.
    let mark: String = params.key_identifier(key).iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    params.distinguished_name = name(&format!("Hostler local CA {mark}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.name_constraints = Some(NameConstraints {
        permitted_subtrees: vec![
            GeneralSubtree::DnsName(LOCALHOST.to_owned()), // and all below it
            GeneralSubtree::IpAddress(CidrSubnet::from_v4_prefix([127, 0, 0, 0], 8)),
            GeneralSubtree::IpAddress(CidrSubnet::from_v6_prefix(Ipv6Addr::LOCALHOST.octets(), 128)),
        ],
        excluded_subtrees: Vec::new(),
    });
    params
}

fn leaf_params(dns_name: &str, now: SystemTime) -> Result<CertificateParams, Error> {
    let mut params = CertificateParams::default();
    params.distinguished_name = name("localhost");
    params.subject_alt_names = vec![SanType::DnsName(dns_name.try_into()?)];
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    limit(&mut params, now, LEAF_LIFE);
    Ok(params)
}

fn name(common: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::OrganizationName, "Hostler local development");
    name.push(DnType::CommonName, common);
    name
}

fn limit(params: &mut CertificateParams, now: SystemTime, life: Duration) {
    let epoch = date_time_ymd(1970, 1, 1);
    let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    // Whole seconds: a certificate has no finer ones.
    let start = Duration::from_secs(now.saturating_sub(BACKDATED).as_secs());
    params.not_before = epoch + start;
    params.not_after = epoch + start + life;
}

/// With a key of its own: serial numbers follow from keys, and no two certificates of an issuer may share one.
fn signed(params: &CertificateParams, issuer: &Issuer<'_, KeyPair>) -> Result<Pair, Error> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    pair(&key, &params.signed_by(&key, issuer)?)
}

fn pair(key: &KeyPair, certificate: &Certificate) -> Result<Pair, Error> {
    let pem = format!("{}{}", key.serialize_pem(), certificate.pem());
    Pair::parse(pem.as_bytes()).map_err(|_| Error::CouldNotParseCertificate)
}
