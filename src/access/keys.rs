//! The keys of an issuer in force: of a file, or fetched.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwapOption;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until, timeout};

use super::fetch;
use super::watch::Watch;
use crate::config::{KeySource, KeysUrl};
use crate::credentials::KeySet;
use crate::credentials::jwt::{Claims, Expected, Refusal, Unverified};

/// A token with an unknown key makes us fetch, but so long after another has: strangers can send as many as they like.
const COOLDOWN: Duration = Duration::from_secs(10);
/// How long such a token waits for the keys.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long to wait after the first failure in a row; each further one doubles it, up to the interval of refreshing.
const FIRST_RETRY: Duration = Duration::from_secs(1);

/// Where keys come from, and those that came last.
pub struct Keys {
    source: KeySource,
    /// How often they are fetched.
    every: Duration,
    in_force: ArcSwapOption<KeySet>,
    watch: Mutex<Watch>,
    is_failing: AtomicBool,
    fetching: Mutex<Fetching>,
    /// Somebody has met a key that is not among them.
    wanted: Notify,
    /// How often fetching has come to an end, one way or the other.
    rounds: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Fetching {
    /// When it is to be done next; `None`: now.
    due: Option<Instant>,
    /// When it was wanted out of turn, and in which round.
    wanted: Option<(Instant, u64)>,
    /// Failures since it went well.
    failures: u32,
}

/// No keys have come yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoKeys;

impl Keys {
    /// Of a file: as they have been read. Of a URL: none, until [`Self::refresh`] has fetched them.
    #[must_use]
    pub fn new(source: KeySource, every: Duration) -> Self {
        let keys = match &source {
            KeySource::File { keys, .. } => Some(Arc::clone(keys)),
            KeySource::Url(_) => None,
        };
        Self {
            source,
            every,
            in_force: ArcSwapOption::new(keys),
            watch: Mutex::default(),
            is_failing: AtomicBool::new(false),
            fetching: Mutex::default(),
            wanted: Notify::new(),
            rounds: watch::Sender::new(0),
        }
    }

    /// Whether these are the keys of such a source: then they can go on after a reload. A file that says something else by
    /// now has to begin anew.
    #[must_use]
    pub fn are_of(&self, source: &KeySource, every: Duration) -> bool {
        match (&self.source, source) {
            (KeySource::Url(ours), KeySource::Url(theirs)) => ours == theirs && self.every == every,
            (KeySource::File { path: ours, .. }, KeySource::File { path: theirs, keys }) => {
                ours == theirs && self.in_force.load().as_ref().is_some_and(|in_force| in_force == keys)
            }
            _ => false,
        }
    }

    /// Whether they could not be had the last time.
    pub(super) fn is_failing(&self) -> bool {
        self.is_failing.load(Ordering::Relaxed)
    }

    /// Whether they come from a file.
    pub(super) fn are_a_file(&self) -> bool {
        matches!(self.source, KeySource::File { .. })
    }

    /// Whether they come from there, however often they are fetched.
    pub(super) fn come_from(&self, source: &KeySource) -> bool {
        self.source == *source
    }

    /// Has these until others have been fetched.
    pub(super) fn begin_with(&self, other: &Self) {
        self.in_force.store(other.in_force.load_full());
    }

    /// Verifies a token. One whose key is unknown waits for the keys to be fetched, if they may be.
    ///
    /// # Errors
    /// [`NoKeys`]; within, why the token is not good.
    pub async fn verify(&self, token: &[u8], expected: &Expected) -> Result<Result<Claims, Refusal>, NoKeys> {
        // What cannot be good has no need of keys, nor may it make us fetch some.
        let token = match Unverified::parse(token, expected) {
            Ok(token) => token,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let verdict = || {
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            let keys = self.in_force.load();
            keys.as_ref().ok_or(NoKeys).map(|keys| token.verify(keys, expected, now))
        };
        let first = verdict();
        if !matches!(first, Err(NoKeys) | Ok(Err(Refusal::UnknownKey))) {
            return first;
        }
        // They may have come just now.
        let Some(mut round) = self.want() else { return verdict() };
        // An error is the patience that is over: the verdict is the same.
        let _ = timeout(PATIENCE, round.changed()).await;
        verdict()
    }

    /// Has the keys fetched out of turn. `None`: they come from a file, or have been fetched for this reason of late.
    fn want(&self) -> Option<watch::Receiver<u64>> {
        if self.are_a_file() {
            return None;
        }
        let rounds = self.rounds.subscribe();
        let (now, round) = (Instant::now(), *rounds.borrow());
        let mut fetching = self.fetching();
        match fetching.wanted {
            // On its way already.
            Some((_, of)) if of == round => {}
            Some((at, _)) if now.saturating_duration_since(at) < COOLDOWN => return None,
            _ => {
                fetching.wanted = Some((now, round));
                self.wanted.notify_one();
            }
        }
        Some(rounds)
    }

    fn fetching(&self) -> std::sync::MutexGuard<'_, Fetching> {
        self.fetching.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fetches them again and again, for ever; returns at once when they come from a file.
    pub async fn refresh(self: Arc<Self>) {
        let KeySource::Url(url) = &self.source else { return };
        loop {
            let due = self.fetching().due;
            if let Some(due) = due {
                tokio::select! {
                    () = sleep_until(due) => {}
                    () = self.wanted.notified() => {}
                }
            }
            // Whatever ends this task meanwhile: the next one begins with it.
            self.fetching().due = None;
            let fetched = fetch::get(url)
                .await
                .and_then(|bytes| KeySet::parse(&bytes, &"the answer").map_err(|unusable| unusable.to_string()));
            self.note(url, fetched);
            self.rounds.send_modify(|round| *round += 1);
        }
    }

    fn note(&self, url: &KeysUrl, fetched: Result<KeySet, String>) {
        self.is_failing.store(fetched.is_err(), Ordering::Relaxed);
        let mut fetching = self.fetching();
        match fetched {
            Ok(keys) => {
                let (count, left_out) = (keys.keys().len(), keys.left_out().len());
                let is_new = self.in_force.load().as_ref().is_none_or(|before| **before != keys);
                if is_new {
                    self.in_force.store(Some(Arc::new(keys)));
                }
                if is_new || fetching.failures > 0 {
                    tracing::info!(%url, keys = count, left_out, "the keys for tokens were fetched");
                }
                fetching.failures = 0;
                fetching.due = Some(Instant::now() + self.every);
            }
            Err(why) => {
                let wait = FIRST_RETRY.saturating_mul(1 << fetching.failures.min(16)).min(self.every);
                fetching.failures = fetching.failures.saturating_add(1);
                fetching.due = Some(Instant::now() + wait);
                if self.in_force.load().is_some() {
                    tracing::error!(%url, "the keys for tokens cannot be fetched, those from before stay in force: {why}");
                } else {
                    tracing::error!(%url, "the keys for tokens cannot be fetched, and nobody with a token is let in: {why}");
                }
            }
        }
    }

    /// Reads the file again if it has changed, and puts its keys in force if they can be used. Blocks. Nothing is done for
    /// keys that are fetched.
    pub fn look(&self) {
        let KeySource::File { path, .. } = &self.source else { return };
        if !self.watch.lock().unwrap_or_else(PoisonError::into_inner).is_due(path) {
            return;
        }
        let read = KeySet::read(path);
        self.is_failing.store(read.is_err(), Ordering::Relaxed);
        match read {
            Ok(keys) if self.in_force.load().as_ref().is_some_and(|before| **before == keys) => {}
            Ok(keys) => {
                let (count, left_out) = (keys.keys().len(), keys.left_out().len());
                self.in_force.store(Some(Arc::new(keys)));
                tracing::info!(file = %path.display(), keys = count, left_out, "the keys for tokens were read anew");
            }
            Err(unusable) => tracing::error!("{unusable}: the keys from before stay in force"),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use base64::Engine as _;
    use base64::prelude::BASE64_URL_SAFE_NO_PAD;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;
    use crate::config;
    use crate::credentials::Algorithm;

    fn source(place: &str) -> KeySource {
        let text = format!(
            "sites: [{{ routes: [{{ path: /, respond: {{}}, auth: {{ jwt: {{ jwks: \"{place}\", issuer: i, audience: a, \
             algorithms: [EdDSA] }} }} }}] }}]"
        );
        let loaded = config::load_str(&text, "f", std::path::Path::new("/"), &|_| None).unwrap();
        loaded.config.sites[0].routes[0].auth.clone().unwrap().jwt.unwrap().jwks
    }

    fn keys(source: KeySource) -> Arc<Keys> {
        Arc::new(Keys::new(source, Duration::from_secs(600)))
    }

    /// An issuer with one key.
    struct Issuer {
        key: aws_lc_rs::signature::Ed25519KeyPair,
        id: &'static str,
    }

    impl Issuer {
        fn new(id: &'static str) -> Self {
            Self { key: aws_lc_rs::signature::Ed25519KeyPair::generate().unwrap(), id }
        }

        fn set(&self) -> String {
            use aws_lc_rs::signature::KeyPair as _;
            let x = BASE64_URL_SAFE_NO_PAD.encode(self.key.public_key().as_ref());
            format!(r#"{{"keys":[{{"kty":"OKP","crv":"Ed25519","kid":"{}","x":"{x}"}}]}}"#, self.id)
        }

        fn token(&self) -> String {
            let header = BASE64_URL_SAFE_NO_PAD.encode(format!(r#"{{"alg":"EdDSA","kid":"{}"}}"#, self.id));
            let claims = BASE64_URL_SAFE_NO_PAD.encode(r#"{"iss":"i","aud":"a","exp":99999999999}"#);
            let signature = self.key.sign(format!("{header}.{claims}").as_bytes());
            format!("{header}.{claims}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature.as_ref()))
        }
    }

    fn expected() -> Expected {
        Expected {
            algorithms: vec![Algorithm::EdDsa],
            issuer: "i".into(),
            audience: vec!["a".into()],
            leeway: Duration::ZERO,
        }
    }

    async fn verdict(keys: &Keys, issuer: &Issuer) -> Result<Result<(), Refusal>, NoKeys> {
        let verdict = keys.verify(issuer.token().as_bytes(), &expected()).await;
        verdict.map(|token| token.map(|_| ()))
    }

    /// Answers each connection with the next of these, and then closes it.
    async fn serve(listener: TcpListener, answers: Vec<Vec<u8>>) {
        for answer in answers {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.unwrap());
            }
            assert!(head.starts_with(b"GET /jwks HTTP/1.1\r\n"), "{}", String::from_utf8_lossy(&head));
            // An error is a client that has heard enough.
            let _ = stream.write_all(&answer).await;
        }
    }

    fn ok(body: &str) -> Vec<u8> {
        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
    }

    async fn bound() -> (TcpListener, KeySource) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let source = source(&format!("http://127.0.0.1:{port}/jwks"));
        (listener, source)
    }

    #[tokio::test]
    async fn a_token_with_a_new_key_waits_until_it_is_fetched() {
        let (old, new, stranger) = (Issuer::new("old"), Issuer::new("new"), Issuer::new("stranger"));
        let (listener, source) = bound().await;
        let keys = keys(source);
        let serving = serve(listener, vec![ok(&old.set()), ok(&new.set())]);
        let refreshing = Arc::clone(&keys).refresh();
        let asking = async {
            assert_eq!(verdict(&keys, &old).await, Ok(Ok(())), "the first ones are waited for");
            // Not held up by those who come before them: nothing is fetched for what cannot be good.
            assert!(matches!(keys.verify(b"a.b.c", &expected()).await, Ok(Err(Refusal::Malformed))));
            keys.fetching().wanted = None;
            assert_eq!(verdict(&keys, &new).await, Ok(Ok(())));
            assert_eq!(verdict(&keys, &old).await, Ok(Err(Refusal::UnknownKey)), "it is not among them any more");
            assert_eq!(verdict(&keys, &stranger).await, Ok(Err(Refusal::UnknownKey)), "and nothing is fetched for it");
        };
        tokio::select! {
            () = async { tokio::join!(serving, asking); } => {}
            () = refreshing => unreachable!("it goes on for ever"),
        }
    }

    #[tokio::test]
    async fn whatever_is_no_set_of_keys_leaves_those_from_before() {
        let issuer = Issuer::new("1");
        let set = issuer.set();
        let chunked =
            format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{set}\r\n0\r\n\r\n", set.len());
        let huge = vec![b' '; crate::credentials::LARGEST as usize + 1];
        let until_the_end = [b"HTTP/1.1 200 OK\r\n\r\n".as_slice(), &huge].concat();
        let found = b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1/\r\nContent-Length: 0\r\n\r\n".to_vec();
        let answers = [
            (Ok(()), chunked.into_bytes()),
            (Err("the answer is 302"), found),
            (Err("the answer is 503"), b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n".to_vec()),
            (Err("larger than 1 MiB"), ok(&String::from_utf8(huge).unwrap())),
            (Err("larger than 1 MiB"), until_the_end),
            (Err("is no JWK Set"), ok("<html>")),
            (Err("has no key"), ok(r#"{"keys":[]}"#)),
            (Err(""), b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{".to_vec()),
            (Err(""), b"SSH-2.0-OpenSSH_9.2\r\n".to_vec()),
            (Err(""), Vec::new()),
            (Err("no connection"), Vec::new()),
        ];
        let (listener, source) = bound().await;
        let KeySource::Url(url) = source.clone() else { unreachable!("it is a URL") };
        let keys = keys(source);
        assert!(keys.in_force.load().is_none());
        let serving = tokio::spawn(serve(
            listener,
            answers[..answers.len() - 1].iter().map(|(_, answer)| answer.clone()).collect(),
        ));
        for (expected, answer) in &answers {
            let fetched = fetch::get(&url).await;
            let fetched = fetched.and_then(|bytes| KeySet::parse(&bytes, &"it").map_err(|error| error.to_string()));
            match (expected, &fetched) {
                (Ok(()), Ok(_)) => {}
                (Err(words), Err(why)) if why.contains(words) => {}
                _ => panic!("{fetched:?} for {:.60}", String::from_utf8_lossy(answer)),
            }
            keys.note(&url, fetched);
            assert_eq!(verdict(&keys, &issuer).await, Ok(Ok(())), "{expected:?}");
        }
        serving.await.unwrap();
        assert_eq!(keys.fetching().failures as usize, answers.len() - 1);
    }

    /// Sends whoever connects a byte of this every second, and leaves him waiting for more.
    async fn drip(listener: TcpListener, answer: Vec<u8>) {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let answer = answer.clone();
            tokio::spawn(async move {
                for byte in answer {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    // An error is a client that has had enough of it.
                    let _ = stream.write_all(&[byte]).await;
                }
                std::future::pending::<()>().await;
            });
        }
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_is_slow_to_tell_keys_holds_up_nobody_for_ever() {
        let issuer = Issuer::new("1");
        for answer in [Vec::new(), ok(&issuer.set())] {
            let (listener, source) = bound().await;
            let KeySource::Url(url) = source.clone() else { unreachable!("it is a URL") };
            let keys = keys(source);
            let asking = async {
                let first = timeout(PATIENCE * 3 / 2, verdict(&keys, &issuer)).await;
                assert_eq!(first, Ok(Err(NoKeys)), "a token does not wait for as long as a fetch may take");
                assert!(!keys.is_failing(), "which goes on");
                let fetched = timeout(fetch::LIMIT * 2, fetch::get(&url)).await;
                assert_eq!(fetched, Ok(Err("no whole answer within 10s".into())));
                assert!(keys.is_failing(), "as did the one of before");
            };
            tokio::select! {
                () = asking => {}
                () = drip(listener, answer) => unreachable!("it goes on for ever"),
                () = Arc::clone(&keys).refresh() => unreachable!("it goes on for ever"),
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn strangers_do_not_make_us_fetch_more_than_once_in_a_while() {
        let keys = keys(source("http://127.0.0.1:1/jwks"));
        let is_wanted = || keys.want().is_some();
        assert!(is_wanted() && is_wanted(), "both wait for the same answer");
        keys.rounds.send_modify(|round| *round += 1);
        assert!(!is_wanted());
        tokio::time::advance(COOLDOWN).await;
        assert!(is_wanted());
        // Failures are further and further apart, up to the interval.
        let KeySource::Url(url) = &keys.source else { unreachable!("it is a URL") };
        let waits: Vec<_> = (0..14)
            .map(|_| {
                keys.note(url, Err("broken".into()));
                keys.fetching().due.unwrap().saturating_duration_since(Instant::now()).as_secs()
            })
            .collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 600, 600, 600, 600]);
    }

    #[tokio::test]
    async fn a_bad_new_file_of_keys_keeps_the_old_one() {
        let (old, new) = (Issuer::new("old"), Issuer::new("new"));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("jwks.json");
        std::fs::write(&path, old.set()).unwrap();
        let keys = keys(source(path.to_str().unwrap()));
        for bad in ["", "{}", "not JSON", r#"{"keys":[{"kty":"oct"}]}"#, &" ".repeat(2 << 20)] {
            std::fs::write(&path, bad).unwrap();
            keys.look();
            keys.look();
            assert_eq!(verdict(&keys, &old).await, Ok(Ok(())), "{bad:.30}");
        }
        std::fs::remove_file(&path).unwrap();
        keys.look();
        keys.look();
        assert_eq!(verdict(&keys, &old).await, Ok(Ok(())), "gone");
        std::fs::write(&path, new.set()).unwrap();
        keys.look();
        keys.look();
        assert_eq!(verdict(&keys, &new).await, Ok(Ok(())));
        assert_eq!(verdict(&keys, &old).await, Ok(Err(Refusal::UnknownKey)));
    }
}
