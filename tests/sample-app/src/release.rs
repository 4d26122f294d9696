//! The application as a release: it works for some time and exits, without listening.

use std::time::Duration;

/// What `sample-app release <seconds> <exit code>` asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Release {
    /// How long it works.
    pub duration: Duration,
    /// What it exits with.
    pub exit_code: u8,
}

impl Release {
    /// Reads the arguments of the process. `None` when there are none: the application serves then. Anything else is a
    /// mistake, and a release that serves would end only with its time.
    ///
    /// # Errors
    /// A message that says how they are given.
    pub fn read(arguments: &[String]) -> Result<Option<Self>, String> {
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        let usage = || {
            let given = arguments.join(" ");
            format!("takes nothing, or `release <seconds> <exit code>`, and not `{given}`")
        };
        let [seconds, exit_code] = match arguments[..] {
            ["release", seconds, exit_code] => [seconds, exit_code],
            [] => return Ok(None),
            _ => return Err(usage()),
        };
        Ok(Some(Release {
            duration: seconds
                .parse()
                .map(Duration::from_secs)
                .map_err(|_| usage())?,
            exit_code: exit_code.parse().map_err(|_| usage())?,
        }))
    }

    /// Works, and gives the exit code.
    pub async fn run(self, deployment: &str) -> u8 {
        println!("the release of {deployment} begins");
        tokio::time::sleep(self.duration).await;
        println!(
            "the release of {deployment} ends with {} as it was asked to",
            self.exit_code
        );
        self.exit_code
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(arguments: &[&str]) -> Result<Option<Release>, String> {
        let arguments: Vec<_> = arguments.iter().map(|it| it.to_string()).collect();
        Release::read(&arguments)
    }

    #[test]
    fn a_release_has_a_duration_and_an_exit_code() {
        let (duration, exit_code) = (Duration::from_secs(3), 1);
        let release = Some(Release {
            duration,
            exit_code,
        });
        assert_eq!(read(&["release", "3", "1"]), Ok(release));
        assert_eq!(read(&[]), Ok(None));
        for wrong in [
            &["migrate", "up"][..],
            &["release"],
            &["release", "3"],
            &["release", "x", "1"],
            &["release", "3", "300"],
        ] {
            assert!(read(wrong).unwrap_err().contains("<seconds>"), "{wrong:?}");
        }
    }
}
