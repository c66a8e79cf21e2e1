//! What is counted per request.

use std::sync::OnceLock;

use http::Method;
use prometheus::{Histogram, IntCounter, IntCounterVec};

use super::families::Families;

/// Methods with a label of their own; every other one is counted as `other`, because clients make methods up.
const METHODS: &[&str] = &["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT"];
const OTHER: &str = "other";

/// The counters of one route.
pub struct RouteMetrics {
    requests: IntCounterVec,
    site: String,
    route: String,
    seconds: Histogram,
    methods: [MethodCounters; METHODS.len() + 1],
}

/// One counter per status. A class is made at its first use: most routes see five statuses of the five hundred.
#[derive(Default)]
struct MethodCounters {
    classes: [OnceLock<Box<[OnceLock<IntCounter>; 100]>>; 5],
    /// Statuses outside 100 to 599.
    other: OnceLock<IntCounter>,
}

impl RouteMetrics {
    pub(super) fn new(families: &Families, site: &str, route: &str) -> Self {
        Self {
            requests: families.requests.clone(),
            site: site.to_owned(),
            route: route.to_owned(),
            seconds: families.request_seconds.with_label_values(&[route]),
            methods: Default::default(),
        }
    }

    /// Counts a request that has been answered. Without a lookup of labels, but for the first of a method and status.
    pub fn request(&self, method: &Method, status: u16, seconds: f64) {
        let place = METHODS.iter().position(|known| *known == method.as_str()).unwrap_or(METHODS.len());
        self.counter(place, status).inc();
        self.seconds.observe(seconds);
    }

    fn counter(&self, method: usize, status: u16) -> &IntCounter {
        let counters = &self.methods[method];
        let class = usize::from(status / 100).checked_sub(1).and_then(|class| counters.classes.get(class));
        let Some(class) = class else { return counters.other.get_or_init(|| self.resolve(method, OTHER)) };
        let statuses = class.get_or_init(|| Box::new(std::array::from_fn(|_| OnceLock::new())));
        statuses[usize::from(status % 100)].get_or_init(|| self.resolve(method, &status.to_string()))
    }

    fn resolve(&self, method: usize, status: &str) -> IntCounter {
        let method = METHODS.get(method).copied().unwrap_or(OTHER);
        self.requests.with_label_values(&[self.site.as_str(), self.route.as_str(), method, status])
    }
}
