use std::fs;
use std::os::unix::fs::PermissionsExt;

use rustls::client::verify_server_name;
use rustls::pki_types::ServerName;
use rustls::pki_types::pem::PemObject;

use super::*;

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_381_380)
}

fn fresh() -> (tempfile::TempDir, LocalCa) {
    let dir = tempfile::tempdir().unwrap();
    let ca = LocalCa::below(dir.path());
    (dir, ca)
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// Whether a client that trusts the root at `root_path` takes the certificate for `name`.
fn is_trusted(ca: &LocalCa, issued: &Issued, name: &str, now: SystemTime) -> bool {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca.root_path()).unwrap()).unwrap();
    let leaf = ParsedCertificate::try_from(&issued.certificate).unwrap();
    let now = UnixTime::since_unix_epoch(now.duration_since(SystemTime::UNIX_EPOCH).unwrap());
    let algorithms = provider().signature_verification_algorithms.all;
    verify_server_cert_signed_by_trust_anchor(&leaf, &roots, &[], now, algorithms).is_ok()
        && verify_server_name(&leaf, &ServerName::try_from(name).unwrap()).is_ok()
}

#[test]
fn a_client_that_trusts_the_root_takes_localhost_and_nothing_else() {
    let (_dir, ca) = fresh();
    let issued = ca.localhost(now()).unwrap();
    for name in ["localhost", "127.0.0.1", "::1"] {
        assert!(is_trusted(&ca, &issued, name, now()), "{name}");
    }
    for name in ["shop.example", "shop.localhost", "127.0.0.2"] {
        assert!(!is_trusted(&ca, &issued, name, now()), "{name}");
    }
    assert!(!is_trusted(&ca, &issued, "localhost", now() + LEAF_LIFE));
    assert!(is_trusted(&ca, &issued, "localhost", now() - Duration::from_secs(1800)), "a clock that is behind");
}

#[test]
fn names_below_localhost_get_certificates_of_their_own() {
    let (_dir, ca) = fresh();
    let mut issued = ca.localhost(now()).unwrap();
    for name in ["shop.localhost", "a.b.localhost"] {
        (issued.certificate, issued.private_key) = issued.subdomains.make(name, now()).unwrap().unwrap();
        assert!(is_trusted(&ca, &issued, name, now()), "{name}");
        assert!(!is_trusted(&ca, &issued, "other.localhost", now()), "{name}");
    }
    for name in ["localhost", "shop.example", "notlocalhost", "localhost.example", ""] {
        assert!(issued.subdomains.make(name, now()).is_none(), "{name}");
    }
}

#[test]
fn the_root_vouches_for_no_other_name() {
    let (_dir, ca) = fresh();
    ca.localhost(now()).unwrap();
    let pair = ca.read(CA).unwrap().unwrap();
    let key = rcgen::KeyPair::try_from(&pair.private_key).unwrap();
    let stolen = |name: &str| {
        // The key alone, used by somebody who keeps to none of our rules.
        let mut params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
        let leaf_key = rcgen::KeyPair::generate().unwrap();
        let issuer_params = issue::ca_params(&key);
        let issuer = rcgen::Issuer::from_params(&issuer_params, &key);
        let pem = format!("{}{}", leaf_key.serialize_pem(), params.signed_by(&leaf_key, &issuer).unwrap().pem());
        is_signed(&Pair::parse(pem.as_bytes()).unwrap(), &pair, now())
    };
    assert!(stolen("other.localhost"));
    assert!(stolen("127.1.2.3"));
    for name in ["shop.example", "localhost.example", "10.0.0.1", "::2"] {
        assert!(!stolen(name), "{name}");
    }
}

#[test]
fn it_is_made_once_and_reused() {
    let (dir, ca) = fresh();
    let first = ca.localhost(now()).unwrap();
    let again = LocalCa::below(dir.path()).localhost(now() + DAY).unwrap();
    assert_eq!(first.certificate, again.certificate);
    assert_eq!(first.private_key, again.private_key);
}

#[test]
fn the_certificate_is_renewed_under_the_same_root_when_a_third_of_its_life_is_left() {
    let (_dir, ca) = fresh();
    let first = ca.localhost(now()).unwrap();
    let root = fs::read(ca.root_path()).unwrap();
    let two_thirds = LEAF_LIFE - LEAF_RENEWAL - BACKDATED;
    assert_eq!(ca.localhost(now() + two_thirds).unwrap().certificate, first.certificate);
    let later = now() + two_thirds + Duration::from_secs(1);
    let renewed = ca.localhost(later).unwrap();
    assert_ne!(renewed.certificate, first.certificate);
    assert!(is_trusted(&ca, &renewed, "localhost", later + LEAF_LIFE - DAY));
    assert_eq!(fs::read(ca.root_path()).unwrap(), root);
}

#[test]
fn a_root_that_would_not_outlive_the_certificate_is_replaced() {
    let (_dir, ca) = fresh();
    ca.localhost(now()).unwrap();
    let root = fs::read(ca.root_path()).unwrap();
    let later = now() + CA_LIFE - DAY;
    let issued = ca.localhost(later).unwrap();
    assert_ne!(fs::read(ca.root_path()).unwrap(), root);
    assert!(is_trusted(&ca, &issued, "localhost", later + 2 * DAY));
}

#[test]
fn a_clock_set_back_costs_no_trust() {
    let (_dir, ca) = fresh();
    ca.localhost(now()).unwrap();
    let root = fs::read(ca.root_path()).unwrap();
    let earlier = now() - 100 * DAY;
    assert!(is_trusted(&ca, &ca.localhost(earlier).unwrap(), "localhost", earlier));
    assert_eq!(fs::read(ca.root_path()).unwrap(), root);
}

#[test]
fn a_certificate_of_another_root_is_replaced() {
    let (dir, ca) = fresh();
    let (other_dir, other) = fresh();
    ca.localhost(now()).unwrap();
    let foreign = other.localhost(now()).unwrap();
    fs::copy(other_dir.path().join("local-ca/localhost.pem"), dir.path().join("local-ca/localhost.pem")).unwrap();
    let issued = ca.localhost(now()).unwrap();
    assert_ne!(issued.certificate, foreign.certificate);
    assert!(is_trusted(&ca, &issued, "localhost", now()));
}

#[test]
fn keys_are_for_their_owner_alone() {
    let (dir, ca) = fresh();
    ca.localhost(now()).unwrap();
    let folder = dir.path().join("local-ca");
    let modes = || [CA, LEAF].map(|name| mode(&folder.join(name)));
    assert_eq!((mode(&folder), modes()), (0o700, [0o600; 2]));
    assert!(!fs::read_to_string(ca.root_path()).unwrap().contains("PRIVATE"));
    fs::set_permissions(folder.join(CA), fs::Permissions::from_mode(0o644)).unwrap();
    ca.localhost(now()).unwrap();
    assert_eq!(modes(), [0o600; 2], "what others could read is taken from them");
}

#[test]
fn a_damaged_file_is_named_with_what_to_do() {
    for (name, contents, why) in [
        (CA, "", "it holds no certificate"),
        (CA, "\u{0}garbage", "it holds no certificate"),
        (LEAF, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "it holds no private key"),
    ] {
        let (dir, ca) = fresh();
        ca.localhost(now()).unwrap();
        let path = dir.path().join("local-ca").join(name);
        fs::write(&path, contents).unwrap();
        let error = ca.localhost(now()).map(|_| ()).unwrap_err().to_string();
        assert!(
            error.contains(path.to_str().unwrap()) && error.contains(why) && error.contains("remove it"),
            "{error}"
        );
        assert_eq!(error.contains("browsers"), name == CA, "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), contents, "nothing is overwritten");
        fs::remove_file(&path).unwrap();
        assert!(is_trusted(&ca, &ca.localhost(now()).unwrap(), "localhost", now()), "the advice helps");
    }
}

#[test]
fn a_pair_that_does_not_fit_is_damaged() {
    let (dir, ca) = fresh();
    ca.localhost(now()).unwrap();
    let path = |name: &str| dir.path().join("local-ca").join(name);
    let (root, leaf) = (fs::read_to_string(path(CA)).unwrap(), fs::read_to_string(path(LEAF)).unwrap());
    let (key, _) = root.split_once("-----BEGIN CERTIFICATE").unwrap();
    let (_, certificate) = leaf.split_once("-----BEGIN CERTIFICATE").unwrap();
    fs::write(path(LEAF), format!("{key}-----BEGIN CERTIFICATE{certificate}")).unwrap();
    let error = ca.localhost(now()).map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("its key is not that of its certificate"), "{error}");
}

#[test]
fn what_a_killed_process_left_behind_does_no_harm() {
    let (dir, ca) = fresh();
    let folder = dir.path().join("local-ca");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join(".ca.pem.new"), "half a k").unwrap();
    fs::write(folder.join("lock"), "").unwrap();
    let issued = ca.localhost(now()).unwrap();
    assert!(is_trusted(&ca, &issued, "localhost", now()));
    fs::remove_file(ca.root_path()).unwrap();
    ca.localhost(now()).unwrap();
    assert!(ca.root_path().exists(), "the copy for the public is made again");
}

#[test]
fn many_at_once_agree() {
    let dir = tempfile::tempdir().unwrap();
    let threads: Vec<_> = (0..8)
        .map(|_| {
            // Each opens the lock file itself, as processes do.
            let ca = LocalCa::below(dir.path());
            std::thread::spawn(move || ca.localhost(now()).unwrap().certificate)
        })
        .collect();
    let certificates: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
    assert!(certificates.windows(2).all(|pair| pair[0] == pair[1]));
}

#[test]
fn a_folder_that_cannot_be_made_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    let error = LocalCa::below(&file).localhost(now()).map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("file/local-ca") && error.contains("HOSTLER_STATE_DIR"), "{error}");
}

#[test]
fn the_state_folder_follows_the_environment() {
    let folder = |variables: &[(&str, &str)], is_root| {
        let variable = |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into());
        state_folder_from(variable, is_root).map(|path| path.to_str().unwrap().to_owned())
    };
    let (own, xdg, home) = (("HOSTLER_STATE_DIR", "/s"), ("XDG_STATE_HOME", "/x"), ("HOME", "/h"));
    assert_eq!(folder(&[own, xdg, home], true).as_deref(), Some("/s"));
    assert_eq!(folder(&[xdg, home], true).as_deref(), Some("/x/hostler"));
    assert_eq!(folder(&[home], true).as_deref(), Some("/h/.local/state/hostler"));
    assert_eq!(folder(&[], true).as_deref(), Some("/var/lib/hostler"));
    assert_eq!(folder(&[], false), None);
    assert_eq!(
        folder(&[("HOSTLER_STATE_DIR", ""), ("XDG_STATE_HOME", "x"), home], false).as_deref(),
        Some("/h/.local/state/hostler")
    );
}
