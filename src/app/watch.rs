//! The certificates in force: files that change are read again, and the operator hears what came of it, and when a
//! certificate comes to its end while it is served.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::InForce;
use crate::config::CERTIFICATE_WARNING;
use crate::edge::connection::Terms;
use crate::edge::tls::{Change, Looked, Shown};

/// Between two looks at the files.
const EVERY: Duration = Duration::from_millis(500);
/// The same while files are being written.
const SOON: Duration = Duration::from_millis(250);
/// Operators are told that a new certificate is shown within two seconds. A look finds it, and the next one, by which it has
/// stood still, reads it: half of the time is left for looks at a slow disk and for a machine with much to do.
const _: () = assert!(EVERY.as_millis() + SOON.as_millis() <= 1000);

/// Watches the files of this configuration, for as long as it is in force.
pub(super) async fn watch(in_force: Arc<InForce>) {
    let mut ends = Ends::default();
    let with_tls = |terms: &&Arc<Terms>| terms.tls.is_some();
    let terms: Vec<_> = in_force.terms.iter().filter(with_tls).cloned().collect();
    if terms.is_empty() {
        return;
    }
    loop {
        let terms = terms.clone();
        // The disk may be slow, and a network's may not answer for long; there is one look at a time.
        let looked = tokio::task::spawn_blocking(move || look(terms)).await;
        let mut pause = EVERY;
        // An error is a look that has panicked, of which the log has heard.
        for (terms, looked) in looked.unwrap_or_default() {
            looked.changes.iter().for_each(|change| tell(&terms, change));
            if looked.is_moving {
                pause = SOON;
            }
        }
        ends.look(&in_force.certificates(), SystemTime::now()).iter().for_each(End::tell);
        tokio::time::sleep(pause).await;
    }
}

fn look(terms: Vec<Arc<Terms>>) -> Vec<(Arc<Terms>, Looked)> {
    let look = |terms: Arc<Terms>| {
        let looked = terms.tls.as_ref()?.look(Instant::now(), SystemTime::now());
        Some((terms, looked))
    };
    terms.into_iter().filter_map(look).collect()
}

fn tell(terms: &Terms, change: &Change) {
    let listener = &*terms.name;
    match change {
        Change::Certificate(shown) => {
            terms.listener_metrics.certificate_reloaded(true);
            let until = httpdate::fmt_http_date(shown.not_after);
            tracing::info!(listener, name = shown.name, until, "a new certificate is shown from now on");
        }
        Change::Authorities(path) => {
            terms.listener_metrics.certificate_reloaded(true);
            tracing::info!(listener, file = %path.display(), "clients' certificates are judged by new authorities from now on");
        }
        Change::Stapled { ocsp, until } => {
            terms.listener_metrics.certificate_reloaded(true);
            let until = until.map(httpdate::fmt_http_date);
            tracing::info!(listener, file = %ocsp.display(), until, "an OCSP response is shown with the certificate");
        }
        Change::NotStapled { ocsp, why } => {
            terms.listener_metrics.certificate_reloaded(false);
            tracing::warn!(
                listener,
                file = %ocsp.display(),
                "no OCSP response is shown with the certificate: {why}. Look whether what fetches it still runs"
            );
        }
        Change::Refused(error) => {
            terms.listener_metrics.certificate_reloaded(false);
            tracing::error!(listener, "a changed file cannot be used, what was shown before stays: {error}");
        }
    }
}

/// How far a certificate is from its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Fine,
    Soon,
    Over,
}

impl Stage {
    fn of(not_after: SystemTime, now: SystemTime) -> Self {
        match not_after.duration_since(now) {
            Ok(left) if left < CERTIFICATE_WARNING => Self::Soon,
            Ok(_) => Self::Fine,
            Err(_) => Self::Over,
        }
    }
}

/// What has been told of the ends of certificates: each stage once. Those of the configuration's own certificates are told
/// with its warnings.
#[derive(Debug, Default)]
struct Ends {
    told: HashMap<(Arc<str>, Option<PathBuf>, SystemTime), Stage>,
    is_begun: bool,
}

/// A certificate that has come nearer to its end.
#[derive(Debug, PartialEq, Eq)]
struct End {
    listener: Arc<str>,
    shown: Shown,
    is_over: bool,
}

impl Ends {
    fn look(&mut self, shown: &[(Arc<str>, Shown)], now: SystemTime) -> Vec<End> {
        let before = std::mem::take(&mut self.told);
        let mut ends = Vec::new();
        for (listener, shown) in shown {
            let key = (Arc::clone(listener), shown.cert.clone(), shown.not_after);
            let stage = Stage::of(shown.not_after, now);
            let at_first = if self.is_begun { Stage::Fine } else { stage };
            if *before.get(&key).unwrap_or(&at_first) < stage {
                let (listener, shown) = (Arc::clone(listener), shown.clone());
                ends.push(End { listener, shown, is_over: stage == Stage::Over });
            }
            self.told.insert(key, stage);
        }
        self.is_begun = true;
        ends
    }
}

impl End {
    fn tell(&self) {
        let (listener, name) = (&*self.listener, &*self.shown.name);
        let until = httpdate::fmt_http_date(self.shown.not_after);
        let file = self.shown.cert.as_ref().map(|cert| cert.display().to_string());
        if self.is_over {
            tracing::error!(
                listener,
                name,
                file,
                until,
                "this certificate has expired and is shown all the same: browsers refuse it. Renew it; its file is read at once"
            );
        } else {
            tracing::warn!(
                listener,
                name,
                file,
                until,
                "this certificate expires soon. Look whether what renews it still runs"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_certificate_is_told_once_when_it_comes_near_and_once_when_it_is_there() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let minute = Duration::from_secs(60);
        let listener: Arc<str> = "443".into();
        let shown = |not_after| {
            let shown = Shown { name: "shop.example".into(), cert: Some("shop.crt".into()), not_after };
            vec![(Arc::clone(&listener), shown)]
        };
        let mut ends = Ends::default();
        let fine = shown(now + CERTIFICATE_WARNING + minute);
        let told = |ends: Vec<End>| ends.iter().map(|end| end.is_over).collect::<Vec<bool>>();
        let none: [bool; 0] = [];
        assert_eq!(told(ends.look(&fine, now)), none);
        assert_eq!(told(ends.look(&fine, now + minute)), none, "the limit itself is not within it");
        assert_eq!(told(ends.look(&fine, now + minute * 2)), [false]);
        assert_eq!(told(ends.look(&fine, now + minute * 3)), none);
        assert_eq!(told(ends.look(&fine, now + CERTIFICATE_WARNING + minute * 2)), [true]);
        assert_eq!(told(ends.look(&fine, now + CERTIFICATE_WARNING + minute * 3)), none);
        // Another certificate in its place is told of at once.
        assert_eq!(told(ends.look(&shown(now + minute), now)), [false]);
        assert_eq!(told(ends.look(&shown(now + minute), now + minute * 2)), [true]);
        assert_eq!(ends.told.len(), 1, "what is not shown any more is forgotten");
        let mut ends = Ends::default();
        assert_eq!(told(ends.look(&shown(now), now + minute)), none, "a warning of the configuration has told it");
    }
}
