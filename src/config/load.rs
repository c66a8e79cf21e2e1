//! The way from a file to a [`Config`]: read, parse, decode, check, and either the value or the report.

use std::fs::File;
use std::io::Read;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use super::certificate::said_by_system;
use super::decode::Decoder;
use super::node::Node;
use super::report::{Finding, Severity, Source};
use super::schema::{self, Draft, Places};
use super::{Admin, Config, Publish, Report, Warning, node, semantics, syntax};

/// A larger file is not a configuration.
const LARGEST_FILE: u64 = 1 << 20;

/// A configuration that can be used, and what deserves a look.
#[derive(Debug)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// In the order of the file.
    pub warnings: Vec<Warning>,
    pub(super) source: Arc<Source>,
    pub(super) places: Places,
}

/// Reads a file. `${NAME}` comes from the environment of this process.
///
/// # Errors
/// The report of every error in the file, or of why it cannot be read.
pub fn load(path: &Path) -> Result<Loaded, Report> {
    let (text, base) = read_text(path)?;
    load_str(&text, &path.display().to_string(), &base, &|name| std::env::var(name).ok())
}

/// Reads `admin` alone from a file: a mistake elsewhere in it keeps nobody from the gateway that runs. `None`: there is
/// no `admin`.
///
/// # Errors
/// The report of what is wrong with `admin`, or of why the file cannot be read.
pub fn load_admin(path: &Path) -> Result<Option<Admin>, Report> {
    let (text, base) = read_text(path)?;
    admin_from(&text, &path.display().to_string(), &base, &|name| std::env::var(name).ok())
}

pub(super) fn admin_from(
    text: &str,
    name: &str,
    base: &Path,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Option<Admin>, Report> {
    let (source, root) = parse(text, name)?;
    let mut decoder = Decoder::new(base, env);
    let admin = schema::admin(&mut decoder, &root);
    if decoder.has_errors() { Err(Report::new(source, decoder.findings)) } else { Ok(admin) }
}

/// The same for `realtime.publish`.
///
/// # Errors
/// As [`load_admin`].
pub fn load_publish(path: &Path) -> Result<Option<Publish>, Report> {
    let (text, base) = read_text(path)?;
    let (source, root) = parse(&text, &path.display().to_string())?;
    let env = |name: &str| std::env::var(name).ok();
    let mut decoder = Decoder::new(&base, &env);
    let publish = schema::publish(&mut decoder, &root);
    if decoder.has_errors() { Err(Report::new(source, decoder.findings)) } else { Ok(publish) }
}

/// The text of a file and the folder it is in.
fn read_text(path: &Path) -> Result<(String, PathBuf), Report> {
    let name = path.display().to_string();
    let unreadable = |message: String, help: &str| {
        let mut finding = Finding::new(Severity::Error, None, message);
        finding.help(help);
        Report::new(Source::new(name.clone(), ""), vec![finding])
    };
    let bytes = read(path).map_err(|(message, help)| unreadable(message, help))?;
    let text = String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        unreadable(format!("the file is not UTF-8 text (byte {at})"), "save it as UTF-8")
    })?;
    Ok((text, folder_of(path)))
}

/// The folder that a file is in, absolute: where the relative paths in it start.
#[must_use]
pub fn folder_of(file: &Path) -> PathBuf {
    let absolute = std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
    absolute.parent().unwrap_or(Path::new("/")).to_owned()
}

/// A path as it is written, from an absolute folder on.
#[must_use]
pub fn resolve(folder: &Path, path: &Path) -> PathBuf {
    let inner = path.components().filter(|part| *part != Component::CurDir);
    inner.fold(folder.to_owned(), |folder, part| folder.join(part))
}

/// The bytes of a file, or what is wrong with it and what to do.
fn read(path: &Path) -> Result<Vec<u8>, (String, &'static str)> {
    let cannot = |error: std::io::Error| {
        let help = match error.kind() {
            std::io::ErrorKind::NotFound => "name the file with -c FILE",
            std::io::ErrorKind::PermissionDenied => "let the user that Hostler runs as read it",
            _ => "",
        };
        (format!("cannot read the configuration: {}", said_by_system(&error)), help)
    };
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(cannot)?;
    file.take(LARGEST_FILE + 1).read_to_end(&mut bytes).map_err(cannot)?;
    if bytes.len() as u64 > LARGEST_FILE {
        return Err((
            "the file is larger than 1 MiB".into(),
            "a configuration is a text of some lines: is this the right file?",
        ));
    }
    Ok(bytes)
}

/// Reads a text as if it stood in the file `name` in the folder `base`, which must be absolute.
///
/// # Errors
/// The report of every error in the text.
pub fn load_str(text: &str, name: &str, base: &Path, env: &dyn Fn(&str) -> Option<String>) -> Result<Loaded, Report> {
    let (source, root) = parse(text, name)?;
    let mut decoder = Decoder::new(base, env);
    let mut draft = schema::decode(&mut decoder, &root);
    if let Some(draft) = &mut draft {
        semantics::check(&mut decoder, draft);
    }
    match draft {
        Some(draft) if !decoder.has_errors() => {
            let places = draft.places.clone();
            let warnings = Warning::all(&source, decoder.findings);
            Ok(Loaded { config: finish(draft), warnings, source, places })
        }
        _ => Err(Report::new(source, decoder.findings)),
    }
}

/// YAML, with the place of everything.
fn parse(text: &str, name: &str) -> Result<(Arc<Source>, Node), Report> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let source = Source::new(name, text.replace("\r\n", "\n"));
    match node::parse(&source.text) {
        Ok(Some(root)) => Ok((source, root)),
        Ok(None) => Err(Report::new(source, vec![empty()])),
        Err(unread) => {
            let finding = syntax::explain(&unread, &source.text);
            Err(Report::new(source, vec![finding]))
        }
    }
}

fn empty() -> Finding {
    let mut finding = Finding::new(Severity::Error, None, "the file is empty");
    finding.help("the smallest useful file has one site and one upstream:");
    finding.help("sites: [{ routes: [{ path: /, proxy: app }] }]");
    finding.help("upstreams: { app: { endpoints: [\"unix:/run/gunicorn.sock\"], workers: 4 } }");
    finding
}

/// Drops the places. Only for a draft without errors, in which nothing is missing.
fn finish(draft: Draft) -> Config {
    Config {
        listeners: draft.listeners.into_iter().map(|draft| draft.listener).collect(),
        trusted_proxies: draft.trusted_proxies,
        limits: draft.limits,
        shutdown: draft.shutdown,
        spool: draft.spool,
        upstreams: draft.upstreams.into_iter().filter_map(|draft| draft.upstream).collect(),
        sites: draft.sites.into_iter().map(schema::SiteDraft::into_site).collect(),
        probe_paths: draft.probe_paths.into_iter().map(|(path, _)| path).collect(),
        cache: draft.cache.0,
        admin: draft.admin.map(|(admin, _)| admin),
        realtime: draft.realtime.0,
        logging: draft.logging,
        runtime: draft.runtime,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Bind, Secret};

    #[test]
    fn admin_is_found_in_a_file_that_is_wrong_elsewhere() {
        let env = |name: &str| (name == "TOKEN").then(|| "0123456789abcdef".to_owned());
        let admin = |text: &str| admin_from(text, "f", Path::new("/etc"), &env);
        let text = "upstreams: { app: { wrokers: 1 } }\nbogus: \"${UNSET}\"\nadmin: { bind: \"unix:./a.sock\", token: \"${TOKEN}\" }\n";
        let found = admin(text).unwrap().unwrap();
        assert_eq!(found.bind, Bind::Unix("/etc/a.sock".into()));
        assert_eq!(found.token, Some(Secret::new("0123456789abcdef")));
        assert_eq!(admin("sites: []\n").unwrap(), None);
        assert_eq!(admin("- admin\n").unwrap(), None);
        for wrong in ["admin:\n", "admin: { bind: x }\n", "admin: { bind: 1, token: \"${UNSET}\" }\n", "admin: [\n", ""]
        {
            assert!(admin(wrong).is_err(), "{wrong:?}");
        }
    }
}
