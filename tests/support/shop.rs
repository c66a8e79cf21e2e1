//! The example shop, whichever server runs it.

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// A folder for what one server and its shop keep. Anybody may write there: some servers give up root.
pub(super) fn folder() -> TempDir {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    folder
}

/// What the shop reads from its environment.
pub(super) fn variables(folder: &Path) -> [(&'static str, PathBuf); 2] {
    [("SHOP_COUNTER", folder.join("count")), ("SHOP_JOURNAL", journal(folder))]
}

/// Where [`super::journal::Journal`] finds its lines.
pub(super) fn journal(folder: &Path) -> PathBuf {
    folder.join("journal")
}

/// Where a server has to be started, and with what in its environment.
pub(super) fn prepare(command: &mut Command, folder: &Path) {
    command.current_dir(root()).env("PYTHONDONTWRITEBYTECODE", "1").envs(variables(folder));
}

/// Collects its static files into a folder, as a deploy does.
pub(crate) fn collect_static(folder: &Path) {
    let mut command = Command::new(python());
    command.args(["manage.py", "collectstatic", "--no-input", "--verbosity", "0"]).current_dir(root());
    command.env("PYTHONDONTWRITEBYTECODE", "1").env("SHOP_STATIC", folder);
    let output = command.output().unwrap_or_else(|error| panic!("{}: {error}", python().display()));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// The folder of the project.
pub(super) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/shop")
}

/// The interpreter that has gunicorn and Django: `make` tells where it is.
pub(crate) fn python() -> PathBuf {
    let default = || Path::new(env!("CARGO_MANIFEST_DIR")).join(".venv/bin/python");
    std::env::var_os("HOSTLER_TEST_PYTHON").map_or_else(default, PathBuf::from)
}
