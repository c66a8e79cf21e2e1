//! `hostler check`: the file, and the world around it. What is missing around a file is a warning, because workers may
//! not be up yet.

use std::collections::HashSet;
use std::fmt;
use std::fs::Metadata;
use std::io;
use std::net::ToSocketAddrs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::thread;

use rustix::fs::{Access, AtFlags, CWD, accessat};

use super::certificate::said_by_system;
use super::node::Span;
use super::report::{Finding, Severity, counted, quoted};
use super::{
    AccessTarget, Action, CONNECTIONS, Config, Descriptors, Fallback, Files, Loaded, Report, Sendfile, Shortage, Spool,
    Warning, load, open_files,
};

/// What `check` found. `Display` renders all of it, with a closing line.
#[derive(Debug)]
pub struct Checked {
    name: String,
    outcome: Result<Config, Report>,
    warnings: Vec<Warning>,
}

impl Checked {
    /// Whether the file can be used.
    #[must_use]
    pub fn is_ok(&self) -> bool {
        self.outcome.is_ok()
    }

    /// The configuration, or every error of the file.
    ///
    /// # Errors
    /// The report, when there are errors.
    pub fn outcome(&self) -> Result<&Config, &Report> {
        self.outcome.as_ref()
    }

    /// What deserves a look, from the file and from around it.
    #[must_use]
    pub fn warnings(&self) -> &[Warning] {
        &self.warnings
    }

    /// The same text as `Display`, with colours for a terminal.
    #[must_use]
    pub fn styled(&self) -> String {
        match &self.outcome {
            Ok(config) => self.verdict(config, Warning::styled),
            Err(report) => report.styled(),
        }
    }

    fn verdict(&self, config: &Config, render: impl Fn(&Warning) -> String) -> String {
        let mut text: String = self.warnings.iter().map(|warning| render(warning) + "\n\n").collect();
        let routes = config.sites.iter().map(|site| site.routes.len()).sum();
        let warnings = match self.warnings.len() {
            0 => String::new(),
            n => format!("; {}", counted(n, "warning")),
        };
        text += &format!(
            "{} can be used: {}, {}, {}, {}{warnings}",
            self.name,
            counted(config.listeners.len(), "listener"),
            counted(config.upstreams.len(), "upstream"),
            counted(config.sites.len(), "site"),
            counted(routes, "route"),
        );
        text
    }
}

impl fmt::Display for Checked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.outcome {
            Ok(config) => f.write_str(&self.verdict(config, Warning::to_string)),
            Err(report) => report.fmt(f),
        }
    }
}

/// Loads a file and looks at the sockets and folders it names, with the rights of this process. Looks up the names of
/// endpoints, which takes as long as the name servers take.
#[must_use]
pub fn check(path: &Path) -> Checked {
    let name = path.display().to_string();
    match load(path) {
        Ok(loaded) => inspect(name, loaded, &resolves),
        Err(report) => Checked { name, outcome: Err(report), warnings: Vec::new() },
    }
}

/// The world around a file that can be used.
fn inspect(name: String, loaded: Loaded, lookup: Lookup<'_>) -> Checked {
    let Loaded { config, mut warnings, source, places } = loaded;
    let mut findings = Vec::new();
    for (path, at) in &places.sockets {
        findings.extend(worker_socket(path).err().map(|trouble| trouble.at(Some(at))));
    }
    for (files, may_be_file, at) in &places.roots {
        findings.extend(root(files, *may_be_file).err().map(|trouble| trouble.at(Some(at))));
    }
    findings.extend(unknown_names(&places.names, lookup));
    for (path, at) in &places.made {
        findings.extend(own_socket(path).err().map(|trouble| trouble.at(Some(at))));
    }
    findings.extend(places.passed.iter().map(|(name, at)| passed_by_systemd(name).at(Some(at))));
    if let Some(disk) = &config.cache.disk {
        findings.extend(cache_folder(&disk.path).err().map(|trouble| trouble.at(places.cache.as_ref())));
    }
    findings.extend(folder(&config.spool.dir).err().map(|trouble| trouble.at(places.spool.as_ref())));
    let shortages = descriptors(&config, open_files().1);
    findings.extend(shortages.into_iter().map(|shortage| {
        let place = places.connections.as_ref().filter(|_| shortage.key == CONNECTIONS);
        Trouble::new(shortage.message, shortage.help).at(place)
    }));
    if let Some(AccessTarget::File(file)) = config.logging.access.as_ref().map(|access| &access.to) {
        findings.extend(log_file(file).err().map(|trouble| trouble.at(places.access.as_ref())));
    }
    warnings.extend(Warning::all(&source, findings));
    Checked { name, outcome: Ok(config), warnings }
}

/// Whether this user may have the open files that the connections need. `limit` is the most that `serve` can get.
fn descriptors(config: &Config, limit: usize) -> Vec<Shortage> {
    let threads = config.runtime.threads.unwrap_or_else(|| thread::available_parallelism().map_or(1, usize::from));
    let mut shortages = Descriptors::share(config, limit, threads).shortages(config, limit);
    shortages.retain(|shortage| shortage.is_felt);
    shortages
}

/// What is wrong around the file, and what to do.
struct Trouble {
    message: String,
    help: String,
}

impl Trouble {
    fn new(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { message: message.into(), help: help.into() }
    }

    /// As a warning at the value that names it; a default has no place.
    fn at(self, span: Option<&Span>) -> Finding {
        let mut finding = Finding::new(Severity::Warning, span.cloned(), self.message);
        finding.help(self.help);
        finding
    }
}

/// Whether a name has an address, or why not.
type Lookup<'a> = &'a (dyn Fn(&str) -> io::Result<bool> + Sync);

fn resolves(name: &str) -> io::Result<bool> {
    (name, 0).to_socket_addrs().map(|mut addresses| addresses.next().is_some())
}

/// The names that have no address, each at its first place. Several are looked up at once: a name server that does not
/// answer takes many seconds for each.
fn unknown_names(names: &[(String, Span)], lookup: Lookup<'_>) -> Vec<Finding> {
    const AT_ONCE: usize = 16;
    let mut seen = HashSet::new();
    let names: Vec<_> = names.iter().filter(|(name, _)| seen.insert(name)).collect();
    let look = |(name, at): &(String, Span)| Some(unknown_name(name, lookup(name))?.at(Some(at)));
    let batches = names.chunks(AT_ONCE).flat_map(|batch| {
        thread::scope(|scope| {
            let threads: Vec<_> = batch.iter().map(|name| scope.spawn(|| look(name))).collect();
            threads.into_iter().filter_map(|thread| thread.join().ok().flatten()).collect::<Vec<_>>()
        })
    });
    batches.collect()
}

fn unknown_name(name: &str, found: io::Result<bool>) -> Option<Trouble> {
    let why = match found {
        Ok(true) => return None,
        Ok(false) => "it has no address".into(),
        Err(error) => said_by_system(&error),
    };
    let help = "check the name, and that this machine can ask for it: getent hosts NAME";
    Some(Trouble::new(format!("the name {} cannot be looked up: {why}", quoted(name)), help))
}

/// Whoever runs `check` was not started by systemd.
fn passed_by_systemd(name: &str) -> Trouble {
    let message = format!("whether systemd passes a socket called {} shows only when it starts Hostler", quoted(name));
    Trouble::new(message, format!("its socket unit needs FileDescriptorName={name}; see: systemctl list-sockets"))
}

/// Whether a socket that we are to listen on can be made. One that is there already is replaced, or in use by us.
fn own_socket(path: &Path) -> Result<(), Trouble> {
    let parent = path.parent().unwrap_or(Path::new("/"));
    folder(parent).map_err(|Trouble { message, help }| {
        let help = format!("{help}; below /run systemd makes one for a service that has RuntimeDirectory=");
        Trouble::new(format!("no socket can be made at {}: {message}", shown(path)), help)
    })?;
    match std::fs::symlink_metadata(path) {
        Ok(there) if !there.file_type().is_socket() => {
            let message = format!("no socket can be made at {}: something else is there", shown(path));
            Err(Trouble::new(message, "remove it, or name another path"))
        }
        _ => Ok(()),
    }
}

/// Whether a worker's socket is there and this process may connect to it.
fn worker_socket(path: &Path) -> Result<(), Trouble> {
    enterable(path)?;
    let metadata = std::fs::metadata(path).map_err(|error| {
        let message = format!("{}: {}", shown(path), said_by_system(&error));
        Trouble::new(message, "start the app's server, or check the path against its `bind` setting")
    })?;
    if !metadata.file_type().is_socket() {
        let message = format!("{} is not a socket", shown(path));
        return Err(Trouble::new(message, "check the path against the `bind` setting of the app's server"));
    }
    if may(path, Access::WRITE_OK) {
        return Ok(());
    }
    let help = format!("connecting needs the right to write: {}", rights(&metadata));
    Err(Trouble::new(format!("{} may not connect to {}", myself(), shown(path)), help))
}

/// What is wrong with the folder of the spool, and what to do.
#[must_use]
pub fn spool_trouble(spool: &Spool) -> Option<String> {
    let Trouble { message, help } = folder(&spool.dir).err()?;
    Some(format!("spool.dir: {message} ({help}): bodies larger than a route's buffer.memory will fail"))
}

/// What is wrong with the folder of the cache, and what to do.
#[must_use]
pub fn cache_trouble(path: &Path) -> Option<String> {
    let Trouble { message, help } = cache_folder(path).err()?;
    Some(format!("{message} ({help})"))
}

/// Whether a folder exists and files can be made in it, or it can be made itself.
fn cache_folder(path: &Path) -> Result<(), Trouble> {
    const HELP: &str = "with systemd, CacheDirectory=hostler makes /var/cache/hostler for the user that serves";
    enterable(path)?;
    let parent = path.parent().unwrap_or(path);
    if path.exists() {
        let Trouble { message, help } = match folder(path) {
            Ok(()) => return Ok(()),
            Err(trouble) => trouble,
        };
        return Err(Trouble::new(message, format!("{help}; {HELP}")));
    }
    if may(parent, Access::WRITE_OK | Access::EXEC_OK) {
        return Ok(());
    }
    let message = format!("there is no folder {}, and {} may not make it", shown(path), myself());
    Err(Trouble::new(message, format!("make it for that user, or name another one; {HELP}")))
}

/// What is wrong with the folders whose files are served, and what to do: a line each.
#[must_use]
pub fn roots_trouble(config: &Config) -> Vec<String> {
    let routes = || config.sites.iter().flat_map(|site| &site.routes);
    let served = routes().filter_map(|route| match &route.action {
        Action::Files(files) => Some(("files.root", root(files, route.path.is_exact()).err()?)),
        Action::Proxy(_) | Action::Redirect { .. } | Action::Respond { .. } => None,
    });
    let sent = routes().flat_map(|route| route.sendfile.iter().flat_map(Sendfile::files));
    let sent = sent.filter_map(|files| Some(("sendfile.roots", root(&files, false).err()?)));
    served.chain(sent).map(|(key, Trouble { message, help })| format!("{key}: {message} ({help})")).collect()
}

/// Whether there is a folder, or a file where that may be, with files that this process may read, and the pages that are to
/// be in it.
fn root(files: &Files, may_be_file: bool) -> Result<(), Trouble> {
    let path = &files.root;
    enterable(path)?;
    let metadata = std::fs::metadata(path).map_err(|error| {
        let help =
            "create it (collectstatic does), or check the path; a relative one starts at the folder of this file";
        Trouble::new(format!("{}: {}", shown(path), said_by_system(&error)), help)
    })?;
    if metadata.is_file() && may_be_file {
        return readable(path);
    }
    if !metadata.is_dir() {
        let help = "name the folder; for a single file write path_exact";
        return Err(Trouble::new(format!("{} is not a folder", shown(path)), help));
    }
    if !may(path, Access::EXEC_OK) {
        return Err(closed(path, &metadata, "so no file in it can be served"));
    }
    if files.browse {
        readable(path)?;
    }
    let fallback = match &files.fallback {
        Fallback::File(page) => Some(("fallback", page)),
        Fallback::Nobody | Fallback::Next => None,
    };
    let not_found = files.not_found.as_ref().map(|page| ("not_found", page));
    match fallback.into_iter().chain(not_found).find(|(_, page)| !path.join(page).is_file()) {
        None => Ok(()),
        Some((key, page)) => {
            let message = format!("there is no file {} for `{key}`", shown(&path.join(page)));
            Err(Trouble::new(message, "it is looked for below `root`"))
        }
    }
}

/// What keeps this process from reading a file that is there: the first folder on the way that stops it, or the file. It
/// names the right that is missing, and what to do.
#[must_use]
pub fn read_trouble(path: &Path) -> Option<String> {
    let Trouble { message, help } = enterable(path).and_then(|()| readable(path)).err()?;
    Some(format!("{message} ({help})"))
}

/// Whether this process may read a file or what is in a folder.
fn readable(path: &Path) -> Result<(), Trouble> {
    let cannot = |error: io::Error| Trouble::new(format!("{}: {}", shown(path), said_by_system(&error)), "");
    let metadata = std::fs::metadata(path).map_err(cannot)?;
    if may(path, Access::READ_OK) {
        return Ok(());
    }
    let what = if metadata.is_dir() { "folder" } else { "file" };
    let rights = rights(&metadata);
    let help = format!("the {what} has {rights}; let that user read it with: chmod o+r {}", whole(path));
    Err(Trouble::new(format!("{} may not read {}", myself(), shown(path)), help))
}

/// Whether a folder exists and files can be made in it.
fn folder(path: &Path) -> Result<(), Trouble> {
    enterable(path)?;
    let metadata = std::fs::metadata(path).map_err(|error| {
        Trouble::new(format!("{}: {}", shown(path), said_by_system(&error)), "create the folder, or name another one")
    })?;
    if !metadata.is_dir() {
        return Err(Trouble::new(format!("{} is not a folder", shown(path)), "name a folder"));
    }
    if may(path, Access::WRITE_OK | Access::EXEC_OK) {
        return Ok(());
    }
    let message = format!("{} may not write into {}", myself(), shown(path));
    Err(Trouble::new(message, format!("the folder has {}", rights(&metadata))))
}

/// Whether a log file can be appended to, or made.
fn log_file(path: &Path) -> Result<(), Trouble> {
    enterable(path)?;
    match std::fs::metadata(path) {
        Err(_) => path.parent().map_or(Ok(()), folder),
        Ok(metadata) if metadata.is_dir() => {
            Err(Trouble::new(format!("{} is a folder", shown(path)), "name a file in it"))
        }
        Ok(_) if may(path, Access::WRITE_OK) => Ok(()),
        Ok(metadata) => {
            let message = format!("{} may not write to {}", myself(), shown(path));
            Err(Trouble::new(message, format!("the file has {}", rights(&metadata))))
        }
    }
}

/// Whether this process may pass through every folder above `path`; names the first that stops it.
fn enterable(path: &Path) -> Result<(), Trouble> {
    let mut folders: Vec<&Path> = path.ancestors().skip(1).collect();
    folders.reverse();
    for folder in folders {
        let metadata = std::fs::metadata(folder).map_err(|error| {
            let message = format!("the folder {} of {}: {}", shown(folder), shown(path), said_by_system(&error));
            Trouble::new(message, "create it, or check the path")
        })?;
        if !metadata.is_dir() {
            let message = format!("{} is not a folder, so {} cannot exist", shown(folder), shown(path));
            return Err(Trouble::new(message, "check the path"));
        }
        if !may(folder, Access::EXEC_OK) {
            return Err(closed(folder, &metadata, &format!("so {} is out of reach", shown(path))));
        }
    }
    Ok(())
}

/// A folder that this process may not pass through.
fn closed(folder: &Path, metadata: &Metadata, so: &str) -> Trouble {
    let message = format!("{} may not enter {}, {so}", myself(), shown(folder));
    let help = format!("the folder has {}; let that user pass with: chmod o+x {}", rights(metadata), whole(folder));
    Trouble::new(message, help)
}

/// With the effective user and groups, as open and connect decide.
fn may(path: &Path, access: Access) -> bool {
    accessat(CWD, path, access, AtFlags::EACCESS).is_ok()
}

fn shown(path: &Path) -> String {
    quoted(&path.display().to_string())
}

/// All of a path, on one line whatever is in it: clients name files, too.
fn whole(path: &Path) -> String {
    path.display().to_string().escape_debug().to_string()
}

fn myself() -> String {
    user(rustix::process::geteuid().as_raw())
}

fn rights(metadata: &Metadata) -> String {
    format!("owner {}, group {}, mode {:04o}", user(metadata.uid()), metadata.gid(), metadata.mode() & 0o7777)
}

/// `www-data (33)`, or the number alone when /etc/passwd does not know it.
fn user(uid: u32) -> String {
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then_some(name)
    });
    name.map_or_else(|| format!("user {uid}"), |name| format!("{name} ({uid})"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn too_few_open_files_for_the_connections_are_told() {
        let text = "limits: { connections: 5000 }\nsites: [{ routes: [{ path: /, respond: { body: ok } }] }]\n";
        let config = crate::config::load_str(text, "f", Path::new("/"), &|_| None).unwrap().config;
        let trouble = descriptors(&config, 1024).remove(0);
        assert!(trouble.message.contains("not 5000") && trouble.help.contains("LimitNOFILE"), "{}", trouble.message);
        assert!(descriptors(&config, 1 << 20).is_empty());
    }

    /// Writes a file that names a socket, a spool and a log in `folder`, and checks it.
    fn checked(folder: &Path, socket: &str) -> Checked {
        let file = folder.join("hostler.yaml");
        let text = format!(
            "upstreams: {{ app: {{ endpoints: ['unix:{socket}'], workers: 4 }} }}\n\
             sites: [{{ routes: [{{ path: /, proxy: app }}] }}]\n\
             spool: {{ dir: ./spool }}\nlogging: {{ access: {{ to: ./log/access.log }} }}\n"
        );
        std::fs::write(&file, text).unwrap();
        check(&file)
    }

    fn messages(checked: &Checked) -> Vec<String> {
        checked.warnings().iter().map(|warning| warning.message().to_owned()).collect()
    }

    fn complete_folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("spool")).unwrap();
        std::fs::create_dir(folder.path().join("log")).unwrap();
        folder
    }

    #[test]
    fn nothing_is_said_when_everything_is_in_place() {
        let folder = complete_folder();
        let _listener = UnixListener::bind(folder.path().join("app.sock")).unwrap();
        let checked = checked(folder.path(), "app.sock");
        assert_eq!(messages(&checked), [""; 0]);
        assert!(checked.is_ok());
        assert!(checked.to_string().ends_with("can be used: 1 listener, 1 upstream, 1 site, 1 route"), "{checked}");
    }

    #[test]
    fn what_is_missing_around_a_file_is_a_warning_with_its_place() {
        let folder = tempfile::tempdir().unwrap();
        let checked = checked(folder.path(), "app.sock");
        assert!(checked.is_ok());
        let lines: Vec<_> = checked.warnings().iter().map(|warning| (warning.line(), warning.message())).collect();
        let [(Some(1), socket), (Some(3), spool), (Some(4), log)] = lines[..] else { panic!("{checked}") };
        assert!(socket.contains("app.sock`: No such file"), "{socket}");
        assert!(spool.contains("spool`: No such file"), "{spool}");
        assert!(log.starts_with("the folder") && log.contains("log` of"), "{log}");
        assert!(checked.to_string().ends_with("; 3 warnings"), "{checked}");
    }

    #[test]
    fn a_folder_that_the_cache_cannot_use_is_told_and_one_that_is_to_be_made_is_not() {
        let folder = complete_folder();
        let folder = folder.path();
        let _listener = UnixListener::bind(folder.join("app.sock")).unwrap();
        std::fs::write(folder.join("plain"), "").unwrap();
        std::fs::create_dir(folder.join("there")).unwrap();
        for (path, told) in [
            ("./there", None),
            ("./new", None),
            ("./plain", Some("plain` is not a folder")),
            ("./none/new", Some("the folder `")),
        ] {
            let file = folder.join("hostler.yaml");
            let text = format!(
                "upstreams: {{ app: {{ endpoints: ['unix:app.sock'], workers: 4 }} }}\n\
                 sites: [{{ routes: [{{ path: /, proxy: app, cache: true }}] }}]\nspool: {{ dir: ./spool }}\n\
                 cache: {{ disk: {{ path: {path} }} }}\n"
            );
            std::fs::write(&file, text).unwrap();
            let checked = check(&file);
            let said: Vec<_> = checked.warnings().iter().map(|warning| (warning.line(), warning.message())).collect();
            match told {
                None => assert_eq!(said, [], "{path}"),
                Some(told) => {
                    assert!(said.len() == 1 && said[0].0 == Some(4) && said[0].1.contains(told), "{path}: {said:?}");
                    assert!(checked.to_string().contains("CacheDirectory=hostler") || path != "./plain", "{checked}");
                }
            }
        }
    }

    #[test]
    fn where_no_socket_of_our_own_can_be_made_is_told() {
        let folder = complete_folder();
        let file = folder.path().join("hostler.yaml");
        std::fs::write(folder.path().join("precious"), "data").unwrap();
        let _old = UnixListener::bind(folder.path().join("old.sock")).unwrap();
        let told = |edge: &str, admin: &str, publish: &str| {
            let text = format!(
                "listeners:\n  - {{ bind: 'unix:{edge}' }}\nadmin: {{ bind: 'unix:{admin}' }}\n\
                 realtime: {{ publish: {{ bind: 'unix:{publish}' }} }}\n\
                 sites: [{{ routes: [{{ path: /, respond: {{}} }}] }}]\nspool: {{ dir: ./spool }}\n"
            );
            std::fs::write(&file, text).unwrap();
            let checked = check(&file);
            assert!(checked.is_ok(), "{checked}");
            checked.warnings().iter().map(|warning| (warning.line(), warning.message().to_owned())).collect::<Vec<_>>()
        };
        let lines = told("./edge.sock", "./old.sock", "./spool/publish.sock");
        assert!(lines.is_empty(), "{lines:?}");
        let lines = told("./none/edge.sock", "./precious", "./precious/publish.sock");
        let [(Some(2), edge), (Some(3), admin), (Some(4), publish)] = &lines[..] else { panic!("{lines:?}") };
        assert!(edge.contains("none/edge.sock`: ") && edge.contains("No such file"), "{edge}");
        assert!(admin.ends_with("precious`: something else is there"), "{admin}");
        assert!(publish.contains("precious` is not a folder"), "{publish}");
    }

    #[test]
    fn a_file_in_place_of_a_socket_is_told() {
        let folder = complete_folder();
        std::fs::write(folder.path().join("app.sock"), "").unwrap();
        let told = messages(&checked(folder.path(), "app.sock"));
        assert!(told.len() == 1 && told[0].ends_with("app.sock` is not a socket"), "{told:?}");
    }

    #[test]
    fn a_socket_that_speaks_uwsgi_is_looked_at_as_well() {
        let folder = complete_folder();
        let file = folder.path().join("hostler.yaml");
        let text = "upstreams: { app: { endpoints: ['uwsgi+unix:app.sock'], workers: 4 } }\n\
                    sites: [{ routes: [{ path: /, proxy: app }] }]\nspool: { dir: ./spool }\n";
        std::fs::write(&file, text).unwrap();
        let told = messages(&check(&file));
        assert!(told.len() == 1 && told[0].contains("app.sock`: No such file"), "{told:?}");
    }

    #[test]
    fn a_name_that_cannot_be_looked_up_is_a_warning_at_its_place() {
        let text = "upstreams:\n  app:\n    workers: 4\n    endpoints: [\"http://known\", \"http://10.0.0.5\",\n      \
                    \"https://unknown\", \"http://[::1]\",\n      \"uwsgi://empty:3031\", \"h2c://unknown:81\"]\n\
                    sites: [{ routes: [{ path: /, proxy: app }] }]\n";
        let loaded = crate::config::load_str(text, "f", Path::new("/"), &|_| None).unwrap();
        let lookup = |name: &str| match name {
            "known" => Ok(true),
            "empty" => Ok(false),
            "unknown" => Err(io::Error::other("nobody knows")),
            other => panic!("{other} is no name"),
        };
        let Loaded { source, places, .. } = loaded;
        let warnings = Warning::all(&source, unknown_names(&places.names, &lookup));
        let told: Vec<_> = warnings.iter().map(|warning| (warning.line(), warning.message())).collect();
        let unknown = "the name `unknown` cannot be looked up: nobody knows";
        let empty = "the name `empty` cannot be looked up: it has no address";
        assert_eq!(told, [(Some(5), unknown), (Some(6), empty)]);
        assert!(resolves("localhost").unwrap());
    }

    #[test]
    fn the_first_folder_that_blocks_the_way_is_named() {
        let folder = complete_folder();
        let closed = folder.path().join("closed");
        std::fs::create_dir_all(closed.join("inner")).unwrap();
        let _listener = UnixListener::bind(closed.join("inner/app.sock")).unwrap();
        std::fs::set_permissions(&closed, Permissions::from_mode(0o600)).unwrap();
        let checked = checked(folder.path(), "closed/inner/app.sock");
        std::fs::set_permissions(&closed, Permissions::from_mode(0o700)).unwrap();
        let told = messages(&checked);
        if rustix::process::geteuid().is_root() {
            assert_eq!(told, [""; 0], "nothing stops root");
        } else {
            assert!(told.len() == 1 && told[0].contains("may not enter") && told[0].contains("/closed`"), "{told:?}");
            assert!(checked.to_string().contains("mode 0600"), "{checked}");
        }
    }

    /// What is said of a folder whose files are served by a route with these further keys of `files`.
    fn told_of_root(folder: &Path, path: &str, root: &str, keys: &str) -> Vec<String> {
        std::fs::create_dir_all(folder.join("spool")).unwrap();
        let file = folder.join("hostler.yaml");
        let text = format!(
            "spool: {{ dir: ./spool }}\nsites:\n  - routes:\n      - {{ {path}, files: {{ root: {root}, {keys} }} }}\n"
        );
        std::fs::write(&file, text).unwrap();
        let checked = check(&file);
        assert!(checked.is_ok(), "{checked}");
        assert!(checked.warnings().iter().all(|warning| warning.line() == Some(4)), "{checked}");
        messages(&checked)
    }

    #[test]
    fn a_root_that_cannot_be_served_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        std::fs::create_dir(folder.join("static")).unwrap();
        std::fs::write(folder.join("static/a.txt"), "a").unwrap();
        for (path, root, keys, told) in [
            ("path: /", "./static", "", None),
            ("path_exact: /a", "./static/a.txt", "", None),
            ("path: /", "./static", "not_found: /a.txt", None),
            ("path: /", "./none", "", Some("none`: No such file")),
            ("path: /", "./none/static", "", Some("the folder `")),
            ("path: /", "./static/a.txt", "", Some("a.txt` is not a folder")),
            ("path: /", "./static", "not_found: /404.html", Some("404.html` for `not_found`")),
            ("path: /", "./static", "fallback: /app.html", Some("app.html` for `fallback`")),
        ] {
            let said = told_of_root(folder, path, root, keys);
            match told {
                None => assert_eq!(said, [""; 0], "{root} {keys}"),
                Some(told) => assert!(said.len() == 1 && said[0].contains(told), "{root} {keys}: {said:?}"),
            }
        }
    }

    #[test]
    fn what_keeps_a_file_from_being_read_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let closed = folder.path().join("closed");
        std::fs::create_dir(&closed).unwrap();
        std::fs::write(closed.join("a"), "a").unwrap();
        assert_eq!(read_trouble(&closed.join("a")), None);
        assert!(read_trouble(&closed.join("b")).unwrap().contains("No such file"));
        std::fs::set_permissions(closed.join("a"), Permissions::from_mode(0o200)).unwrap();
        let of_file = read_trouble(&closed.join("a"));
        std::fs::set_permissions(&closed, Permissions::from_mode(0o600)).unwrap();
        let of_folder = read_trouble(&closed.join("a"));
        std::fs::set_permissions(&closed, Permissions::from_mode(0o700)).unwrap();
        if rustix::process::geteuid().is_root() {
            assert_eq!((of_file, of_folder), (None, None), "nothing stops root");
        } else {
            assert!(of_file.unwrap().contains("may not read"));
            assert!(of_folder.unwrap().contains("chmod o+x"));
        }
    }

    #[test]
    fn rights_name_owner_and_mode() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::set_permissions(folder.path(), Permissions::from_mode(0o750)).unwrap();
        let told = rights(&std::fs::metadata(folder.path()).unwrap());
        assert!(told.starts_with("owner ") && told.ends_with("mode 0750"), "{told}");
        assert_eq!(user(0), "root (0)");
        assert_eq!(user(u32::MAX - 7), format!("user {}", u32::MAX - 7));
    }

    #[test]
    fn a_file_with_errors_is_reported_as_such() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("hostler.yaml");
        std::fs::write(&file, "sites: []\n").unwrap();
        let checked = check(&file);
        assert!(!checked.is_ok());
        assert!(checked.to_string().contains("1 error in"), "{checked}");
    }
}
