//! The folder that both serve: all that a folder can have in it.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tempfile::TempDir;

/// Files with content, by their paths.
const FILES: &[(&str, &str)] = &[
    ("plain.txt", "hello static world\n"),
    ("empty.txt", ""),
    ("one.txt", "x"),
    ("page.html", "<!doctype html><title>page</title>\n"),
    ("style.css", "body { color: teal }\n"),
    ("app.js", "console.log('the app, which is longer than what it is compressed to')\n"),
    ("app.js.gz", "stands for gzip of the app"),
    ("app.js.br", "stands for brotli of the app"),
    ("app.js.zst", "stands for zstd of the app"),
    ("half.js", "console.log('this one has a gzip alone')\n"),
    ("half.js.gz", "stands for gzip of half"),
    ("app.0123456789ab.js", "console.log('hashed')\n"),
    ("data.json", "{\"a\": 1}\n"),
    ("image.png", "not really a png"),
    ("icon.svg", "<svg xmlns=\"http://www.w3.org/2000/svg\"/>\n"),
    ("font.woff2", "not really a font"),
    ("module.wasm", "not really wasm"),
    ("archive.tar.gz", "an archive that stands for itself"),
    ("no-extension", "bytes of nobody knows what\n"),
    ("upper.TXT", "in upper case\n"),
    ("with space.txt", "a name with a space\n"),
    ("ümläut.txt", "a name in UTF-8\n"),
    ("semi;colon.txt", "a name with a semicolon\n"),
    ("100%.txt", "a name with a percent sign\n"),
    ("plus+.txt", "a name with a plus\n"),
    ("ques?tion.txt", "a name with a question mark\n"),
    ("..dots..txt", "a name that begins with two dots\n"),
    (".hidden", "hidden\n"),
    (".git/config", "hidden, too\n"),
    (".well-known/security.txt", "Contact: mailto:security@shop.example\n"),
    ("sub/index.html", "<!doctype html><title>index</title>\n"),
    ("sub/file.txt", "in a folder\n"),
    ("no-index/file.txt", "in a folder without an index\n"),
    ("closed/file.txt", "in a folder that nobody may enter\n"),
    ("unreadable.txt", "nobody may read this\n"),
];

/// What is beside the folder.
const OUTSIDE: &str = "outside\n";
/// Holes but for a few bytes; 5 GiB and 3 bytes.
const BIG: &str = "big.bin";
const BIG_LENGTH: u64 = (5 << 30) + 3;
const MARKS: &[(u64, &[u8])] = &[(0, b"begin"), ((4 << 30) - 4, b"boundary"), (BIG_LENGTH - 3, b"end")];
/// What is not kept in memory by anybody: 300,000 bytes.
const LARGE: &str = "large.txt";

/// The folder, beside a file that is not in it.
pub(super) struct Tree {
    folder: TempDir,
    large: Vec<u8>,
    _socket: UnixListener,
}

impl Tree {
    pub(super) fn plant() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
        fs::write(folder.path().join("secret.txt"), OUTSIDE).unwrap();
        let root = folder.path().join("s");
        for (name, content) in FILES {
            let path = root.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        let large: Vec<u8> = (0..300_000_u32).map(|number| b'a' + (number % 23) as u8).collect();
        fs::write(root.join(LARGE), &large).unwrap();
        plant_big(&root.join(BIG));
        plant_links(&root);
        rustix::fs::mknodat(
            rustix::fs::CWD,
            root.join("fifo"),
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::from_raw_mode(0o644),
            0,
        )
        .unwrap();
        let socket = UnixListener::bind(root.join("socket")).unwrap();
        date(&root);
        for (name, mode) in [("unreadable.txt", 0), ("closed", 0)] {
            fs::set_permissions(root.join(name), Permissions::from_mode(mode)).unwrap();
        }
        Self { folder, large, _socket: socket }
    }

    pub(super) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(super) fn root(&self) -> PathBuf {
        self.folder().join("s")
    }

    /// Whose bytes these are: all of them, or from the first on of a file of that length.
    pub(super) fn name_of(&self, bytes: &[u8], range: Option<(u64, u64)>) -> Option<String> {
        let is_it = |content: &[u8]| match range {
            None => content == bytes,
            Some((first, length)) => {
                content.len() as u64 == length && content.get(first as usize..).is_some_and(|at| at.starts_with(bytes))
            }
        };
        if let Some((name, _)) = FILES.iter().find(|(_, content)| is_it(content.as_bytes())) {
            return Some((*name).to_owned());
        }
        if is_it(OUTSIDE.as_bytes()) {
            return Some("../secret.txt".to_owned());
        }
        if is_it(&self.large) {
            return Some(LARGE.to_owned());
        }
        let (first, length) = range?;
        let mut of_big = vec![0; bytes.len()];
        let big = File::open(self.root().join(BIG)).unwrap();
        let is_big = length == BIG_LENGTH && big.read_exact_at(&mut of_big, first).is_ok() && of_big == bytes;
        is_big.then(|| BIG.to_owned())
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        // What nobody may enter cannot be removed by those who are not root.
        let _ = fs::set_permissions(self.root().join("closed"), Permissions::from_mode(0o700));
    }
}

fn plant_big(path: &Path) {
    let big = File::create(path).unwrap();
    for (at, mark) in MARKS {
        big.write_all_at(mark, *at).unwrap();
    }
}

fn plant_links(root: &Path) {
    let absolute = root.join("plain.txt");
    let links: &[(&str, &Path)] = &[
        ("link-in.txt", Path::new("plain.txt")),
        ("link-absolute.txt", &absolute),
        ("link-out.txt", Path::new("../secret.txt")),
        ("link-out-and-in.txt", Path::new("../s/plain.txt")),
        ("link-etc", Path::new("/etc")),
        ("link-folder", Path::new("sub")),
        ("link-loop.txt", Path::new("link-loop.txt")),
        ("link-dangling.txt", Path::new("nowhere.txt")),
    ];
    for (name, to) in links {
        symlink(to, root.join(name)).unwrap();
    }
}

/// All files are as old: Fri, 02 Jan 2026 03:04:05 GMT, and a little.
fn date(folder: &Path) {
    let then = SystemTime::UNIX_EPOCH + Duration::new(1_767_323_045, 123_456_789);
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            date(&entry.path());
        } else if kind.is_file() {
            File::options().append(true).open(entry.path()).unwrap().set_modified(then).unwrap();
        }
    }
}
