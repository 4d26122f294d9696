//! The results of many runs.

use std::collections::BTreeMap;
use std::fmt;

use super::invariants::{Observation, Violation};
use super::plan::{Case, Workflow};

/// The results of many runs.
#[derive(Debug, Default)]
pub struct Summary {
    /// The number of runs in which every fault hit a call, by workflow, kind of fault and ending.
    pub run: BTreeMap<(Workflow, &'static str, String), usize>,
    /// Cases in which a fault hit no call.
    pub not_reached: Vec<String>,
    /// Cases in which an invariant did not hold.
    pub violated: Vec<(String, Vec<Violation>)>,
    /// Cases that could not be run.
    pub broken: Vec<String>,
}

impl Summary {
    /// Adds a run; returns one line about it.
    pub fn add(&mut self, case: &Case, observed: anyhow::Result<Observation>) -> String {
        let observation = match observed {
            Ok(observation) => observation,
            Err(why) => {
                let line = format!("{case}: could not be run: {why:#}");
                self.broken.push(line.clone());
                return line;
            }
        };
        let violations = observation.violations();
        let ending = observation.first.ending;
        let line = match (violations.is_empty(), observation.was_hit) {
            (true, true) => format!("{case}: held, {ending}"),
            (true, false) => format!("{case}: held, but a fault hit no call, {ending}"),
            (false, _) => format!("{case}: VIOLATED, {ending}\n  {}", lines(&violations)),
        };
        if observation.was_hit {
            let key = (case.workflow, case.kind(), ending);
            *self.run.entry(key).or_default() += 1;
        } else {
            self.not_reached.push(case.to_string());
        }
        if !violations.is_empty() {
            self.violated.push((case.to_string(), violations));
        }
        line
    }

    /// Adds the results of another summary.
    pub fn merge(&mut self, other: Summary) {
        for (key, number) in other.run {
            *self.run.entry(key).or_default() += number;
        }
        self.not_reached.extend(other.not_reached);
        self.violated.extend(other.violated);
        self.broken.extend(other.broken);
    }

    /// Whether every run was possible, every invariant held, and the faults hit calls. Of the pairs, some end before
    /// their second call, so one in twenty cases may hit none.
    pub fn holds(&self) -> bool {
        let hit: usize = self.run.values().sum();
        let is_tried = hit > 0 && self.not_reached.len() * 20 <= hit;
        self.violated.is_empty() && self.broken.is_empty() && is_tried
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let run: usize = self.run.values().sum();
        writeln!(
            f,
            "{run} runs in which every fault hit a call; {} cases violated an invariant, {} had a fault that hit no call, {} could not be run",
            self.violated.len(),
            self.not_reached.len(),
            self.broken.len()
        )?;
        for ((workflow, kind, ending), number) in &self.run {
            writeln!(f, "  {workflow:<9} {kind:<17} {ending:<15} {number}")?;
        }
        for (case, violations) in &self.violated {
            writeln!(f, "violated by {case}:\n  {}", lines(violations))?;
        }
        for case in &self.not_reached {
            writeln!(f, "no call was hit: {case}")?;
        }
        for case in &self.broken {
            writeln!(f, "not run: {case}")?;
        }
        Ok(())
    }
}

fn lines(violations: &[Violation]) -> String {
    let lines: Vec<_> = violations.iter().map(Violation::to_string).collect();
    lines.join("\n  ")
}
