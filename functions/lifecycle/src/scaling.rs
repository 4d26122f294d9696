//! How a deployment's number of tasks follows its load. The settings say it, and a tag of the target group keeps it, so
//! that a rollback and a cleanup need not read the settings.

use serde::{Deserialize, Serialize};

use crate::tags::{self, Tags};

/// How a deployment's number of tasks follows its load, between what it asks for and `max`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Scaling {
    /// The most tasks.
    pub max: u32,
    /// The average use of the CPU, in per cent of what the tasks have, that is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_percent: Option<u32>,
    /// The requests per minute that are kept for each task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests_per_target: Option<u32>,
}

/// What is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// Per cent of the CPU.
    Cpu(u32),
    /// Requests per task and minute.
    Requests(u32),
}

impl Scaling {
    /// What is kept.
    ///
    /// # Errors
    /// In words, when it names both or neither.
    pub fn target(&self) -> Result<Target, &'static str> {
        match (self.cpu_percent, self.requests_per_target) {
            (Some(percent), None) => Ok(Target::Cpu(percent)),
            (None, Some(requests)) => Ok(Target::Requests(requests)),
            (Some(_), Some(_)) => {
                Err("must have one of `cpuPercent` and `requestsPerTarget`, not both")
            }
            (None, None) => Err("needs `cpuPercent` or `requestsPerTarget`"),
        }
    }

    /// The value of [`tags::SCALING`]: `max=10 cpuPercent=60`. A tag may not contain the characters of JSON:
    /// <https://docs.aws.amazon.com/elasticloadbalancing/latest/APIReference/API_Tag.html>.
    pub fn to_tag(&self) -> String {
        let parts = [
            ("max", Some(self.max)),
            ("cpuPercent", self.cpu_percent),
            ("requestsPerTarget", self.requests_per_target),
        ];
        let parts = parts.into_iter();
        let parts: Vec<_> = parts
            .filter_map(|(name, value)| Some(format!("{name}={}", value?)))
            .collect();
        parts.join(" ")
    }

    /// What the tags of a deployment say. `None` without such a tag.
    ///
    /// # Errors
    /// In words, when an operator has changed the tag into something else.
    pub fn of(tags: &Tags) -> Option<Result<Self, String>> {
        let value = tags.get(tags::SCALING)?;
        Some(Self::from_tag(value).ok_or_else(|| {
            format!(
                "its tag {} is `{value}`, and not like `max=10 cpuPercent=60`",
                tags::SCALING
            )
        }))
    }

    fn from_tag(value: &str) -> Option<Self> {
        let mut scaling = Scaling {
            max: 0,
            cpu_percent: None,
            requests_per_target: None,
        };
        for part in value.split(' ') {
            let (name, number) = part.split_once('=')?;
            let number: u32 = number.parse().ok().filter(|number| *number > 0)?;
            match name {
                "max" => scaling.max = number,
                "cpuPercent" => scaling.cpu_percent = Some(number),
                "requestsPerTarget" => scaling.requests_per_target = Some(number),
                _ => return None,
            }
        }
        (scaling.max > 0 && scaling.target().is_ok()).then_some(scaling)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tagged(value: &str) -> Tags {
        Tags::from([(tags::SCALING.to_owned(), value.to_owned())])
    }

    #[test]
    fn a_tag_keeps_it_and_gives_it_back() {
        for (cpu_percent, requests_per_target, tag) in [
            (Some(60), None, "max=10 cpuPercent=60"),
            (None, Some(500), "max=10 requestsPerTarget=500"),
        ] {
            let scaling = Scaling {
                max: 10,
                cpu_percent,
                requests_per_target,
            };
            assert_eq!(scaling.to_tag(), tag);
            assert_eq!(Scaling::of(&tagged(tag)), Some(Ok(scaling)));
        }
        assert_eq!(Scaling::of(&Tags::new()), None);
    }

    #[test]
    fn what_an_operator_made_of_the_tag_is_refused_in_words() {
        for value in [
            "",
            "max=10",
            "cpuPercent=60",
            "max=0 cpuPercent=60",
            "max=10 cpuPercent=0",
            "max=10 cpuPercent=60 requestsPerTarget=500",
            "max=10  cpuPercent=60",
            "max=10 cpuPercent=many",
            "max=10 memoryPercent=60",
        ] {
            let why = Scaling::of(&tagged(value)).unwrap().unwrap_err();
            assert!(why.contains(tags::SCALING), "{why}");
        }
    }
}
