//! The memory and the processes of the local cloud.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use procfs::process::{Process, all_processes};

const MEBIBYTE: u64 = 1024 * 1024;

/// How much more of something there may be in the last quarter of the time than in the one before it.
struct Growth {
    percent: u64,
    /// For what a short life has not filled yet, and for what happens at the moment.
    more: u64,
}

const MEMORY: Growth = Growth {
    percent: 5,
    more: 8,
};

const PROCESSES: Growth = Growth {
    percent: 10,
    more: 8,
};

/// What is read from a sample.
type Measure = fn(&Sample) -> u64;

/// The state at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// The time since the beginning.
    pub at: Duration,
    /// The processes of functions.
    pub functions: u64,
    /// The processes of tasks, without their supervisors.
    pub tasks: u64,
    /// The resident memory of this process, in MiB: gateway, load balancer, ECS and the visitors.
    pub own: u64,
    /// The resident memory of MiniStack without functions, in MiB.
    pub ministack: u64,
}

impl Sample {
    /// Measures now.
    ///
    /// # Errors
    /// When the kernel shows no processes.
    pub fn take(at: Duration) -> anyhow::Result<Sample> {
        let page = procfs::page_size();
        let mut sample = Sample {
            at,
            functions: 0,
            tasks: 0,
            own: 0,
            ministack: 0,
        };
        let own = Process::myself()?.pid();
        let mut found = HashMap::new();
        // A process that has just ended is skipped.
        for process in all_processes()?.flatten() {
            if let Ok(stat) = process.stat() {
                let command = process.cmdline().unwrap_or_default().join(" ");
                found.insert(stat.pid, (stat.ppid, stat.rss * page, command));
            }
        }
        let is_ministack = |pid| {
            found
                .get(&pid)
                .is_some_and(|(_, _, it)| it.contains("launcher.py"))
        };
        for (pid, (parent, memory, command)) in &found {
            if *pid == own {
                sample.own = memory / MEBIBYTE;
            } else if *parent == own && is_ministack(*pid) {
                sample.ministack = memory / MEBIBYTE;
            } else if is_ministack(*parent) && found[parent].0 == own {
                sample.functions += 1;
            } else if found
                .get(parent)
                .is_some_and(|(_, _, it)| it.contains("supervisor"))
                && !command.contains("supervisor")
            {
                sample.tasks += 1;
            }
        }
        Ok(sample)
    }
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:>5.0} s: {} MiB, MiniStack {} MiB, {} function and {} task processes",
            self.at.as_secs_f64(),
            self.own,
            self.ministack,
            self.functions,
            self.tasks
        )
    }
}

/// All samples, oldest first.
#[derive(Debug, Default)]
pub struct Usage(Vec<Sample>);

impl Usage {
    /// Adds a sample. Returns whether it is the first one of its minute.
    pub fn add(&mut self, sample: Sample) -> bool {
        let minute = |sample: &Sample| sample.at.as_secs() / 60;
        let last = self.0.last().map(minute);
        self.0.push(sample);
        last != Some(minute(&sample))
    }

    /// What grew over the last half of the time, between the quarters of it.
    pub fn growth(&self, length: Duration) -> Vec<String> {
        let quarter = |number: u32, value: Measure| {
            let from = length / 4 * number;
            let within = |sample: &&Sample| sample.at >= from && sample.at < from + length / 4;
            let mut values: Vec<u64> = self.0.iter().filter(within).map(value).collect();
            values.sort_unstable();
            values.get(values.len() / 2).copied()
        };
        let measures: [(&str, Measure, Growth); 3] = [
            ("MiB of this process", |it| it.own, MEMORY),
            ("MiB of MiniStack", |it| it.ministack, MEMORY),
            ("function processes", |it| it.functions, PROCESSES),
        ];
        let grew = measures.into_iter().filter_map(|(what, value, growth)| {
            let (before, after) = (quarter(2, value), quarter(3, value));
            let most = before.map(|before| before * (100 + growth.percent) / 100 + growth.more);
            if after.is_some() && after <= most {
                return None;
            }
            Some(format!(
                "from {before:?} to {after:?} {what} in the last half"
            ))
        });
        grew.collect()
    }
}

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(last) = self.0.last() else {
            return Ok(());
        };
        // A sixth, the half and the end: 10, 30 and 60 minutes of an hour.
        for part in [6, 2, 1] {
            if let Some(sample) = self.0.iter().find(|sample| sample.at >= last.at / part) {
                writeln!(f, "{sample}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An hour with a sample each minute.
    fn hour(memory: fn(u64) -> u64, functions: fn(u64) -> u64) -> Vec<String> {
        let mut usage = Usage::default();
        for minute in 0..60 {
            usage.add(Sample {
                at: Duration::from_secs(60 * minute),
                functions: functions(minute),
                tasks: 4,
                own: 100,
                ministack: memory(minute),
            });
        }
        usage.growth(Duration::from_secs(3600))
    }

    #[test]
    fn what_grows_over_the_last_half_is_found_and_what_grew_before_is_not() {
        let settled = |minute: u64| 200 + 10 * minute.min(20);
        assert_eq!(hour(settled, |_| 20), [""; 0]);
        let noisy = |minute: u64| 20 + minute % 5;
        assert_eq!(hour(settled, noisy), [""; 0]);
        let grew = hour(|minute| 200 + 4 * minute, |_| 20);
        assert_eq!(
            grew,
            ["from Some(348) to Some(408) MiB of MiniStack in the last half"]
        );
        let grew = hour(settled, |minute| 2 * minute);
        assert_eq!(
            grew,
            ["from Some(74) to Some(104) function processes in the last half"]
        );
    }

    #[test]
    fn a_life_that_was_not_measured_proves_nothing() {
        let growth = Usage::default().growth(Duration::from_secs(3600));
        assert_eq!(growth.len(), 3);
    }

    #[test]
    fn this_process_is_measured() {
        let sample = Sample::take(Duration::ZERO).expect("measured");
        assert!(sample.own > 0, "{sample}");
    }
}
