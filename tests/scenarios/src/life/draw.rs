//! What happens next in a life, drawn by a seed.

use std::fmt;
use std::time::Duration;

use fastrand::Rng;

use crate::test_environment::Variables;

/// The kind of image that is pushed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Image {
    /// It starts and serves.
    Good,
    /// It takes some seconds to start.
    Slow,
    /// It crashes when it starts.
    Crashing,
    /// It fails its health checks.
    Unhealthy,
}

impl Image {
    /// The variables that make the sample application behave so.
    pub fn variables(self) -> Variables<'static> {
        match self {
            Image::Good => &[],
            Image::Slow => &[("START_DELAY_SECONDS", "4")],
            Image::Crashing => &[("CRASH_ON_START", "3")],
            Image::Unhealthy => &[("NEVER_HEALTHY", "1")],
        }
    }

    /// Whether it can go live.
    pub fn serves(self) -> bool {
        matches!(self, Image::Good | Image::Slow)
    }
}

/// Something that people and pipelines do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    /// A push.
    Push(Image),
    /// Two pushes at once, the newer one first.
    PushTwo,
    /// The id of a recent push is started again by hand.
    StartAgain,
    /// A rollback to the previous deployment.
    Rollback,
    /// A rollback to a deployment that was live, which may be gone.
    RollbackTo,
    /// A cleanup besides the scheduled ones.
    CleanUp,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Operation::Push(Image::Good) => "push of a good image",
            Operation::Push(Image::Slow) => "push of a slow image",
            Operation::Push(Image::Crashing) => "push of a crashing image",
            Operation::Push(Image::Unhealthy) => "push of an unhealthy image",
            Operation::PushTwo => "two pushes at once",
            Operation::StartAgain => "second start of an id",
            Operation::Rollback => "rollback",
            Operation::RollbackTo => "rollback to a given id",
            Operation::CleanUp => "cleanup",
        };
        f.pad(text)
    }
}

/// How often each operation is drawn, of a hundred.
const WEIGHTS: [(Operation, u32); 9] = [
    (Operation::Push(Image::Good), 34),
    (Operation::Push(Image::Slow), 10),
    (Operation::Push(Image::Crashing), 8),
    (Operation::Push(Image::Unhealthy), 3),
    (Operation::PushTwo, 6),
    (Operation::StartAgain, 12),
    (Operation::Rollback, 8),
    (Operation::RollbackTo, 7),
    (Operation::CleanUp, 12),
];

/// The draws of one life.
pub struct Draw(Rng);

impl Draw {
    /// The draws of this seed.
    pub fn of(seed: u64) -> Draw {
        Draw(Rng::with_seed(seed))
    }

    /// The next operation, and how long nothing happens before it.
    pub fn operation(&mut self) -> (Duration, Operation) {
        let pause = Duration::from_millis(self.0.u64(500..9_000));
        let all: u32 = WEIGHTS.iter().map(|(_, weight)| weight).sum();
        let mut drawn = self.0.u32(..all);
        for (operation, weight) in WEIGHTS {
            match drawn.checked_sub(weight) {
                Some(rest) => drawn = rest,
                None => return (pause, operation),
            }
        }
        unreachable!("the draw is below the sum of all weights")
    }

    /// An index of a list of this length.
    pub fn index(&mut self, length: usize) -> usize {
        self.0.usize(..length)
    }

    /// Whether a rollback takes the visitors along.
    pub fn evicts(&mut self) -> bool {
        self.0.bool()
    }

    /// The draws of a visitor, who lives beside the operations.
    pub fn visitor(&mut self) -> Draw {
        Draw(self.0.fork())
    }

    /// How long a visitor stays.
    pub fn stay(&mut self) -> Duration {
        Duration::from_millis(self.0.u64(10_000..150_000))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn operations(seed: u64) -> Vec<(Duration, Operation)> {
        let mut draw = Draw::of(seed);
        (0..500).map(|_| draw.operation()).collect()
    }

    #[test]
    fn a_seed_gives_the_same_operations_again_and_every_kind_is_drawn() {
        assert_eq!(operations(7), operations(7));
        assert_ne!(operations(7), operations(8));
        let kinds: BTreeSet<_> = operations(7).into_iter().map(|(_, kind)| kind).collect();
        assert_eq!(kinds.len(), WEIGHTS.len());
    }
}
