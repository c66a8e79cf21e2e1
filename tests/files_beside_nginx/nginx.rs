//! nginx on the same folder, set up as well as it can be for it.

use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use super::launcher;
use super::tree::Tree;
use crate::support::lines::Lines;
use crate::support::{Address, look_until};

/// A running nginx, in one process. Ends when it is dropped.
pub(super) struct Nginx {
    child: Child,
    address: Address,
    log: Lines,
    _folder: TempDir,
}

impl Nginx {
    pub(super) fn start(tree: &Tree) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (file, socket) = (folder.path().join("nginx.conf"), folder.path().join("nginx.sock"));
        let config = include_str!("nginx.conf")
            .replace("@FOLDER@", &folder.path().display().to_string())
            .replace("@TREE@", &tree.folder().display().to_string());
        std::fs::write(&file, config).unwrap();
        let launcher = launcher();
        let mut command = Command::new(launcher[0]);
        // Debian keeps servers where users do not look.
        command.args(&launcher[1..]).args(["/usr/sbin/nginx", "-e", "stderr", "-c"]).arg(&file);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child =
            command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error} (tests/python/tools.sh installs it)"));
        let log = Lines::of(child.stderr.take().unwrap());
        let nginx = Self { child, address: Address::Unix(socket), log, _folder: folder };
        if look_until(|| nginx.address.connect().ok()).is_none() {
            panic!("nginx does not start (tests/python/tools.sh installs it):\n{}", nginx.log.all().join("\n"));
        }
        nginx
    }

    pub(super) fn address(&self) -> &Address {
        &self.address
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // Errors say that it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
