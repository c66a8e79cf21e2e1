//! The process itself, read from `/proc/self` at each scrape, under the names that every Prometheus client uses.
//! What cannot be read is left out.

use std::fs;

use prometheus::core::{Collector, Desc};
use prometheus::proto::{MetricFamily, MetricType};
use prometheus::{Gauge, Result};

/// Clock ticks a second in `/proc`: fixed by the kernel's interface on every architecture we build for.
const TICKS: f64 = 100.0;

#[derive(Clone)]
pub(super) struct Process {
    cpu: Gauge,
    memory: Gauge,
    open_fds: Gauge,
    max_fds: Gauge,
    start: Gauge,
}

impl Process {
    pub(super) fn new() -> Result<Self> {
        Ok(Self {
            cpu: Gauge::new("process_cpu_seconds_total", "User and system CPU time spent, in seconds.")?,
            memory: Gauge::new("process_resident_memory_bytes", "Resident memory, in bytes.")?,
            open_fds: Gauge::new("process_open_fds", "Open file descriptors.")?,
            max_fds: Gauge::new("process_max_fds", "File descriptors the process may open.")?,
            start: Gauge::new("process_start_time_seconds", "Start of the process, in seconds since 1970.")?,
        })
    }
}

impl Collector for Process {
    fn desc(&self) -> Vec<&Desc> {
        [&self.cpu, &self.memory, &self.open_fds, &self.max_fds, &self.start]
            .into_iter()
            .flat_map(Collector::desc)
            .collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let stat = Stat::read();
        let mut families = Vec::new();
        let mut add = |gauge: &Gauge, value: Option<f64>| {
            if let Some(value) = value {
                gauge.set(value);
                families.extend(gauge.collect());
            }
        };
        add(&self.memory, resident_bytes());
        add(&self.open_fds, open_fds());
        add(&self.max_fds, max_fds());
        add(&self.start, stat.as_ref().and_then(|stat| Some(boot_seconds()? + stat.start_ticks / TICKS)));
        add(&self.cpu, None);
        if let Some(stat) = stat {
            families.push(as_counter(&self.cpu, stat.cpu_ticks / TICKS));
        }
        families
    }
}

/// A counter whose value comes from outside: the crate's own counters can only be incremented.
fn as_counter(named: &Gauge, value: f64) -> MetricFamily {
    let mut counter = prometheus::proto::Counter::default();
    counter.set_value(value);
    let mut metric = prometheus::proto::Metric::default();
    metric.set_counter(counter);
    let mut family = named.collect().swap_remove(0);
    family.set_field_type(MetricType::COUNTER);
    family.set_metric(vec![metric]);
    family
}

struct Stat {
    cpu_ticks: f64,
    /// Since the machine started.
    start_ticks: f64,
}

impl Stat {
    fn read() -> Option<Self> {
        Self::parse(&fs::read_to_string("/proc/self/stat").ok()?)
    }

    fn parse(stat: &str) -> Option<Self> {
        // The command's name is in parentheses and may hold anything; the third field follows the last one.
        let fields: Vec<&str> = stat.get(stat.rfind(')')? + 1..)?.split_ascii_whitespace().collect();
        let field = |number: usize| fields.get(number - 3)?.parse::<f64>().ok();
        Some(Self { cpu_ticks: field(14)? + field(15)?, start_ticks: field(22)? })
    }
}

fn boot_seconds() -> Option<f64> {
    number_after(&fs::read_to_string("/proc/stat").ok()?, "btime ")
}

fn resident_bytes() -> Option<f64> {
    Some(number_after(&fs::read_to_string("/proc/self/status").ok()?, "VmRSS:")? * 1024.0)
}

fn max_fds() -> Option<f64> {
    number_after(&fs::read_to_string("/proc/self/limits").ok()?, "Max open files")
}

fn open_fds() -> Option<f64> {
    let count = fs::read_dir("/proc/self/fd").ok()?.count();
    Some(count.saturating_sub(1) as f64) // one is that of the listing
}

/// The number that follows `key` at the start of a line.
fn number_after(text: &str, key: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_name_with_parentheses_and_spaces_is_no_trap() {
        let tail = "S 1 2 3 4 5 6 7 8 9 10 250 50 13 14 15 16 17 18 900 20";
        let stat = Stat::parse(&format!("42 (a) b) (c) {tail}")).unwrap();
        assert_eq!((stat.cpu_ticks, stat.start_ticks), (300.0, 900.0));
        assert!(Stat::parse("42 (short) S 1").is_none());
        assert!(Stat::parse("").is_none());
    }

    #[test]
    fn this_process_has_memory_descriptors_time_and_a_start_in_the_past() {
        let value = |value: Option<f64>| value.unwrap();
        assert!(value(resident_bytes()) > 1e6);
        assert!(value(open_fds()) >= 3.0 && value(open_fds()) <= value(max_fds()));
        let start = value(boot_seconds()) + Stat::read().unwrap().start_ticks / TICKS;
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
        assert!(start <= now + 1.0 && start > now - 7.0 * 86_400.0, "{start} {now}");
    }
}
