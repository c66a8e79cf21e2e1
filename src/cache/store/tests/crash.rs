//! A process that is killed while it stores, reads and purges: whoever comes next finds no wrong byte, and nothing that was
//! purged. Longer: `HOSTLER_CACHE_CRASH_SECONDS=120`, with a kill every five seconds.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::AtomicU32;

use super::*;

const FOLDER: &str = "HOSTLER_CACHE_CRASH";
const ROUND: &str = "HOSTLER_CACHE_CRASH_ROUND";
const KEYS: u64 = 400;
const TAGS: u64 = 7;

/// What is stored of a key in a version: the version is among its facts, and tells its length and its bytes.
fn length(version: u64) -> usize {
    match version % 16 {
        0 => 300_000 + (version % 977) as usize * 700,
        1..4 => 60_000 + (version % 977) as usize * 100,
        _ => (version % 977) as usize * 9,
    }
}

fn tag(number: u64) -> String {
    format!("t{}", number % TAGS)
}

struct Run {
    store: Arc<Store>,
    /// Versions of earlier rounds are smaller.
    version: AtomicU64,
    /// By tag: what is not younger was purged, and that was answered for.
    floors: Mutex<HashMap<String, u64>>,
    log: Mutex<File>,
    found: AtomicU32,
}

impl Run {
    fn open(folder: &Path, round: u64) -> Self {
        let mut floors = HashMap::new();
        let log = File::options().append(true).create(true).read(true).open(folder.join("log")).unwrap();
        for line in BufReader::new(&log).lines() {
            let line = line.unwrap();
            // A line that was cut short was not written to its end.
            if let Some((tag, version)) = line.strip_suffix('.').and_then(|line| line.split_once(' ')) {
                floors.insert(tag.to_owned(), version.parse().unwrap());
            }
        }
        let mut settings = on_disk(&folder.join("cache"));
        settings.memory = 4 * MIB;
        settings.disk.as_mut().unwrap().size = 20 * MIB;
        let store = Store::open(&settings).unwrap();
        let (version, floors, log) = (AtomicU64::new(round << 40), Mutex::new(floors), Mutex::new(log));
        Self { store, version, floors, log, found: AtomicU32::new(0) }
    }

    fn write(&self, number: u64) {
        let since = self.store.moment();
        let version = self.version.fetch_add(1, Relaxed);
        let tag = tag(number);
        let (fields, path, facts) = (fields(), path(number), version.to_le_bytes());
        let meta = Meta {
            status: http::StatusCode::OK,
            fields: &fields,
            facts: &facts,
            host: b"shop.example",
            path: path.as_bytes(),
            tags: &[tag.as_bytes()],
            since,
            primary: None,
            length: None,
        };
        let mut writer = self.store.writer(&key(number), &meta).unwrap();
        push(&mut writer, &content(version, length(version)));
        let _ = outcome(writer.finish());
    }

    /// What is wrong, if anything is.
    fn read(&self, number: u64) -> Result<(), String> {
        let floor = self.floors.lock().unwrap().get(&tag(number)).copied();
        block_on(async {
            let Some(object) = find_object(&self.store, number).await else { return Ok(()) };
            let version = u64::from_le_bytes(object.facts().try_into().unwrap());
            if floor.is_some_and(|floor| version <= floor) {
                return Err(format!("{number} has come back: version {version} of {floor:?}"));
            }
            let body = read(object.body()).await.map_err(|reason| format!("{number} was cut: {reason}"))?;
            self.found.fetch_add(1, Relaxed);
            let is_right = body == content(version, length(version)) && object.path() == path(number).as_bytes();
            if is_right { Ok(()) } else { Err(format!("{number} has wrong bytes")) }
        })
    }

    fn purge(&self, number: u64) {
        let (tag, version) = (tag(number), self.version.load(Relaxed));
        // Whoever has a version has asked before, or has one that is not smaller.
        let before = version.saturating_sub(1);
        block_on(self.store.purge(Purge::Tag(tag.as_bytes().into()), Manner::Hard)).unwrap();
        let mut log = self.log.lock().unwrap();
        log.write_all(format!("{tag} {before}.\n").as_bytes()).unwrap();
        self.floors.lock().unwrap().insert(tag, before);
    }
}

/// The process that is killed. Ends by itself only if something is wrong.
#[test]
#[ignore = "run by the test below, in a process of its own"]
fn child() {
    let Ok(folder) = std::env::var(FOLDER) else { return };
    let round: u64 = std::env::var(ROUND).unwrap().parse().unwrap();
    let run = Run::open(Path::new(&folder), round);
    let steps = AtomicU64::new(round * 1_000_003);
    let work = || {
        loop {
            let step = steps.fetch_add(1, Relaxed);
            let number = step.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33;
            match step % 64 {
                0 => run.purge(number),
                1..24 => run.write(number % KEYS),
                _ => {
                    if let Err(wrong) = run.read(number % KEYS) {
                        println!("wrong: {wrong}");
                        std::process::exit(3);
                    }
                }
            }
            if step.is_multiple_of(256) {
                println!("step");
            }
        }
    };
    std::thread::scope(|scope| {
        (0..3).for_each(|_| {
            scope.spawn(work);
        });
    });
}

#[test]
fn a_process_that_is_killed_leaves_no_wrong_byte_and_nothing_that_was_purged() {
    let folder = tempfile::tempdir().unwrap();
    let seconds: u64 =
        std::env::var("HOSTLER_CACHE_CRASH_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(0);
    let rounds = if seconds > 0 { seconds.div_ceil(5) } else { 4 };
    for round in 1..=rounds {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "cache::store::tests::crash::child", "--ignored", "--nocapture"])
            .env(FOLDER, folder.path())
            .env(ROUND, round.to_string())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (mut steps, begun) = (0, Instant::now());
        for line in BufReader::new(child.stdout.take().unwrap()).lines() {
            let line = line.unwrap();
            assert!(!line.starts_with("wrong"), "{line}, round {round}");
            steps += u64::from(line.ends_with("step"));
            // At another point of its work each time.
            let is_over = if seconds > 0 { begun.elapsed() >= Duration::from_secs(5) } else { steps >= 3 + round };
            if is_over {
                break;
            }
        }
        child.kill().unwrap();
        let status = child.wait().unwrap();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9), "{status}, round {round}");
    }
    let run = Run::open(folder.path(), rounds + 1);
    let begun = Instant::now();
    (0..KEYS).for_each(|number| run.read(number).unwrap());
    until(|| run.store.numbers().is_indexed);
    (0..KEYS).for_each(|number| run.read(number).unwrap());
    let numbers = run.store.numbers();
    println!("{rounds} rounds; {} objects are there after {:?}: {numbers:?}", numbers.disk_objects, begun.elapsed());
    assert!(run.found.load(Relaxed) > 20 && numbers.disk_objects > 10, "{numbers:?}");
    assert_eq!(numbers.corrupted, 0, "what was being written never had a name");
}
