//! Every run of the shop's app, in whichever process: what `examples/shop/tour/journal.py` has written.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::look_until;

/// The journal of one server.
pub(crate) struct Journal(PathBuf);

/// One time that the app ran.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Run {
    /// The process.
    pub(crate) pid: i32,
    pub(crate) method: String,
    /// What the request called itself with `?id=`; `-`: nothing.
    pub(crate) id: String,
    /// When it began and ended, in nanoseconds of the machine's monotonic clock; the end is missing while it runs, and
    /// for ever when its worker was killed.
    pub(crate) begin: u64,
    pub(crate) end: Option<u64>,
}

impl Journal {
    pub(super) fn at(path: PathBuf) -> Self {
        Self(path)
    }

    /// All runs so far, in the order in which they began.
    pub(crate) fn runs(&self) -> Vec<Run> {
        // None yet: the app makes the file.
        let text = std::fs::read_to_string(&self.0).unwrap_or_default();
        parse(&text)
    }

    /// Waits until so many runs have begun.
    pub(crate) fn wait_begun(&self, count: usize) -> Vec<Run> {
        let mut runs = Vec::new();
        let found = look_until(|| {
            runs = self.runs();
            (runs.len() >= count).then_some(())
        });
        assert!(found.is_some(), "{} runs of the app, not {count}: {runs:#?}", runs.len());
        runs
    }

    /// How often each request ran that has a name.
    pub(crate) fn times_run(&self) -> BTreeMap<String, usize> {
        let mut times = BTreeMap::new();
        for run in self.runs().into_iter().filter(|run| run.id != "-") {
            *times.entry(run.id).or_default() += 1;
        }
        times
    }
}

fn parse(text: &str) -> Vec<Run> {
    let mut runs = Vec::new();
    let mut by_name = BTreeMap::new();
    for line in text.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["begin", name, pid, time, method, id] => {
                let (pid, begin) = (pid.parse().unwrap(), time.parse().unwrap());
                assert!(by_name.insert(name, runs.len()).is_none(), "{name} begins twice");
                runs.push(Run { pid, method: method.to_owned(), id: id.to_owned(), begin, end: None });
            }
            ["end", name, _, time] => runs[by_name[name]].end = Some(time.parse().unwrap()),
            _ => panic!("not a line of the journal: {line:?}"),
        }
    }
    runs.sort_by_key(|run: &Run| run.begin);
    runs
}

/// The most runs at one moment. Those that never ended count as over at once: their worker was killed.
pub(crate) fn most_at_once<'a>(runs: impl IntoIterator<Item = &'a Run>) -> usize {
    let ended = runs.into_iter().filter_map(|run| Some((run.begin, run.end?)));
    let mut moments: Vec<(u64, i32)> = ended.flat_map(|(begin, end)| [(begin, 1), (end, -1)]).collect();
    // At the same nanosecond the end comes first.
    moments.sort_unstable();
    let mut now = 0;
    let most = moments.into_iter().map(|(_, change)| {
        now += change;
        now
    });
    most.max().and_then(|most| usize::try_from(most).ok()).unwrap_or(0)
}

#[test]
fn the_journal_counts_what_ran_at_once_and_how_often() {
    let runs =
        parse("begin 1.0 1 10 GET a\nbegin 2.0 2 20 POST b\nend 1.0 1 30\nbegin 1.1 1 30 POST b\nend 2.0 2 40\n");
    assert_eq!(runs.len(), 3);
    assert_eq!((runs[1].method.as_str(), runs[1].id.as_str(), runs[1].end), ("POST", "b", Some(40)));
    assert_eq!(most_at_once(&runs), 2);
    assert_eq!(most_at_once(&runs[..1]), 1);
    assert_eq!(most_at_once(&[]), 0);
}
