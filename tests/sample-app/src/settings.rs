//! The settings, which are read once from the environment.

use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroUsize;
use std::time::Duration;

use crate::turns_bad::{Bad, TurnsBad};

/// All settings of the application.
#[derive(Clone)]
pub struct Settings {
    /// `HOST`: the address to listen on. All addresses if absent.
    pub host: IpAddr,
    /// `PORT`: the port to listen on. 8000 if absent.
    pub port: u16,
    /// `DEPLOYMENT_ID`: the deployment that this task belongs to. `local` if absent.
    pub deployment_id: String,
    /// `DRAIN_SECRET`: the token that `POST /drain` requires. If absent, every drain request is refused.
    pub drain_secret: Option<String>,
    /// `SESSION_IDLE_SECONDS`: the time without a request after which a session ends. 300 if absent.
    pub session_idle: Duration,
    /// `CONCURRENT_REQUESTS`: how many requests of visitors are served at once; others wait in line. Any number if absent.
    pub concurrent_requests: Option<NonZeroUsize>,
    /// `SERVICE_MILLISECONDS`: how long each of these requests takes. 0 if absent.
    pub service_time: Duration,
    /// The ways in which the application misbehaves. None by default.
    pub behaviour: Behaviour,
}

/// Ways to misbehave, for tests of how a deployment handles them.
#[derive(Debug, Clone, Default)]
pub struct Behaviour {
    /// `CRASH_ON_START`: print a reason and exit with this code instead of starting.
    pub crash_on_start: Option<u8>,
    /// `START_DELAY_SECONDS`: how long to wait before listening.
    pub start_delay: Duration,
    /// `NEVER_HEALTHY=1`: answer health checks with 500.
    pub never_healthy: bool,
    /// `HEALTH_503_WHILE_DRAINING=1`: answer health checks with 503 once draining.
    pub health_503_while_draining: bool,
    /// `DRAIN_503=1`: answer drain requests with 503, as a server that is full does.
    pub drain_503: bool,
    /// `NO_DRAIN=1`: provide no drain endpoint.
    pub no_drain: bool,
    /// `TURNS_BAD_WHEN` and `TURNS_BAD`: turn bad when a file appears.
    pub turns_bad: Option<TurnsBad>,
}

impl Settings {
    /// Reads the settings from the environment of the process.
    ///
    /// # Errors
    /// A message that names the variable with an invalid value.
    pub fn from_env() -> Result<Self, String> {
        Self::read(|name| std::env::var(name).ok())
    }

    /// Reads the settings from the variables that `lookup` returns. An empty value counts as absent.
    ///
    /// # Errors
    /// A message that names the variable with an invalid value.
    pub fn read(lookup: impl Fn(&str) -> Option<String>) -> Result<Self, String> {
        let text = |name: &str| lookup(name).filter(|value| !value.is_empty());
        let flag = |name: &str| text(name).is_some_and(|value| value != "0");
        let seconds = |name: &str, default: f64| -> Result<Duration, String> {
            let value: f64 = parsed(name, text(name))?.unwrap_or(default);
            Duration::try_from_secs_f64(value).map_err(|error| format!("{name}: {error}"))
        };
        Ok(Settings {
            host: parsed("HOST", text("HOST"))?.unwrap_or(Ipv4Addr::UNSPECIFIED.into()),
            port: parsed("PORT", text("PORT"))?.unwrap_or(8000),
            deployment_id: text("DEPLOYMENT_ID").unwrap_or_else(|| "local".to_string()),
            drain_secret: text("DRAIN_SECRET"),
            session_idle: seconds("SESSION_IDLE_SECONDS", 300.0)?,
            concurrent_requests: parsed("CONCURRENT_REQUESTS", text("CONCURRENT_REQUESTS"))?,
            service_time: Duration::from_millis(
                parsed("SERVICE_MILLISECONDS", text("SERVICE_MILLISECONDS"))?.unwrap_or(0),
            ),
            behaviour: Behaviour {
                crash_on_start: parsed("CRASH_ON_START", text("CRASH_ON_START"))?,
                start_delay: seconds("START_DELAY_SECONDS", 0.0)?,
                never_healthy: flag("NEVER_HEALTHY"),
                health_503_while_draining: flag("HEALTH_503_WHILE_DRAINING"),
                drain_503: flag("DRAIN_503"),
                no_drain: flag("NO_DRAIN"),
                turns_bad: match text("TURNS_BAD_WHEN") {
                    Some(file) => Some(TurnsBad {
                        when: file.into(),
                        into: parsed("TURNS_BAD", text("TURNS_BAD"))?.unwrap_or(Bad::Crashes),
                    }),
                    None => None,
                },
            },
        })
    }
}

fn parsed<T: std::str::FromStr>(name: &str, value: Option<String>) -> Result<Option<T>, String>
where
    T::Err: std::fmt::Display,
{
    value
        .map(|value| {
            value
                .parse()
                .map_err(|error| format!("{name}={value}: {error}"))
        })
        .transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Settings, String> {
        let find = |name: &str| variables.iter().find(|(n, _)| *n == name);
        Settings::read(|name| find(name).map(|(_, value)| value.to_string()))
    }

    #[test]
    fn the_default_settings_hold_without_variables() {
        let settings = read(&[]).unwrap();
        assert_eq!(settings.host.to_string(), "0.0.0.0");
        assert_eq!(settings.port, 8000);
        assert_eq!(settings.drain_secret, None);
        assert_eq!(settings.session_idle, Duration::from_secs(300));
        assert!(!settings.behaviour.never_healthy);
    }

    #[test]
    fn the_error_for_an_invalid_value_names_the_variable() {
        for variable in [
            "HOST",
            "PORT",
            "CONCURRENT_REQUESTS",
            "SERVICE_MILLISECONDS",
            "CRASH_ON_START",
            "START_DELAY_SECONDS",
        ] {
            let error = read(&[(variable, "-x")]).err().unwrap();
            assert!(error.starts_with(variable), "{error}");
        }
    }

    #[test]
    fn a_flag_is_off_when_empty_or_0() {
        for (value, on) in [("1", true), ("true", true), ("0", false), ("", false)] {
            let settings = read(&[("NO_DRAIN", value)]).unwrap();
            assert_eq!(settings.behaviour.no_drain, on);
        }
    }
}
