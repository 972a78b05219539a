//! The metrics of the process that every Prometheus client library has, read from `/proc` at each scrape. They are written
//! as text, because counters of the crate `metrics` are whole numbers and seconds of CPU time are not.

use std::fmt::Write as _;
use std::fs;

use rustix::process::{Resource, getrlimit};

/// Ticks per second of the times in `/proc`: `USER_HZ`, which is 100 on all architectures that koregate runs on.
const TICKS_PER_SECOND: f64 = 100.0;

/// Type, name and HELP text of each metric, in the order of [`Process::values`].
const METRICS: [(&str, &str, &str); 7] = [
    ("counter", "process_cpu_seconds_total", "Total user and system CPU time spent in seconds."),
    ("gauge", "process_open_fds", "Number of open file descriptors."),
    ("gauge", "process_max_fds", "Maximum number of open file descriptors."),
    ("gauge", "process_resident_memory_bytes", "Resident memory size in bytes."),
    ("gauge", "process_virtual_memory_bytes", "Virtual memory size in bytes."),
    ("gauge", "process_start_time_seconds", "Start time of the process since unix epoch in seconds."),
    ("gauge", "process_threads", "Number of OS threads in the process."),
];

/// Figures of a process from `/proc`.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Process {
    cpu_seconds: f64,
    resident_bytes: f64,
    virtual_bytes: f64,
    /// Seconds since the epoch.
    started_at: f64,
    threads: f64,
}

impl Process {
    /// Parses `/proc/self/stat`, `/proc/self/status` and `/proc/stat`; `None` if a figure is missing.
    fn parse(stat: &str, status: &str, system: &str) -> Option<Self> {
        // The name of the program, in parentheses, may hold anything; field 3 follows it.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let ticks = |number: usize| fields.get(number - 3)?.parse::<f64>().ok();
        let kibibytes = |name: &str| field(status, name)?.trim_end_matches(" kB").parse::<f64>().ok();
        Some(Self {
            cpu_seconds: (ticks(14)? + ticks(15)?) / TICKS_PER_SECOND,
            resident_bytes: kibibytes("VmRSS:")? * 1024.0,
            virtual_bytes: kibibytes("VmSize:")? * 1024.0,
            started_at: field(system, "btime ")?.parse::<f64>().ok()? + ticks(22)? / TICKS_PER_SECOND,
            threads: ticks(20)?,
        })
    }

    /// The values of [`METRICS`], with the open files and their maximum.
    fn values(&self, open_files: f64, max_files: f64) -> [f64; METRICS.len()] {
        let Self { cpu_seconds, resident_bytes, virtual_bytes, started_at, threads } = *self;
        [cpu_seconds, open_files, max_files, resident_bytes, virtual_bytes, started_at, threads]
    }
}

/// The rest of the line that begins with `name`.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim)
}

/// Appends the metrics of this process to `text`; nothing where there is no `/proc`.
pub(super) fn render(text: &mut String) {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let Some(process) = Process::parse(&read("/proc/self/stat"), &read("/proc/self/status"), &read("/proc/stat"))
    else {
        return;
    };
    // The descriptor that lists the others is not counted.
    let open_files = fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count().saturating_sub(1));
    let max_files = getrlimit(Resource::Nofile).current;
    #[expect(clippy::cast_precision_loss, reason = "counts of files are far below 2^52")]
    let values = process.values(open_files as f64, max_files.map_or(f64::INFINITY, |max| max as f64));
    for ((kind, name, help), value) in METRICS.into_iter().zip(values) {
        // Writing to a string does not fail.
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {}", spell(value));
    }
}

/// The spelling of Prometheus' text format.
fn spell(value: f64) -> String {
    if value == f64::INFINITY { "+Inf".to_owned() } else { value.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_read_whatever_the_program_is_called() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 900 0 0 0 150 25 0 0 20 0 9 0 12345 1000 200 1 1";
        let status = "Name:\ta) b (c\nVmSize:\t    2048 kB\nVmRSS:\t     512 kB\nThreads:\t9\n";
        let process = Process::parse(stat, status, "cpu 1 2 3\nbtime 1700000000\n").unwrap();
        assert_eq!(
            process.values(4.0, f64::INFINITY).map(spell),
            ["1.75", "4", "+Inf", "524288", "2097152", "1700000123.45", "9"]
        );
        assert_eq!(Process::parse("", status, ""), None);
        assert_eq!(spell(f64::INFINITY), "+Inf");
    }

    #[test]
    fn this_process_has_all_metrics() {
        let mut text = String::new();
        render(&mut text);
        for (kind, name, _) in METRICS {
            assert!(text.contains(&format!("# HELP {name} ")) && text.contains(&format!("# TYPE {name} {kind}\n")));
            let value = field(&text, &format!("{name} ")).unwrap();
            assert!(value == "+Inf" || value.parse::<f64>().unwrap() >= 0.0, "{name} {value}");
        }
    }
}
