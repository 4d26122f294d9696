//! Finds the action for a request: the rules by priority, then the listener's default action.
//!
//! <https://docs.aws.amazon.com/elasticloadbalancing/latest/application/rule-condition-types.html>
//! <https://docs.aws.amazon.com/elasticloadbalancing/latest/application/rule-action-types.html>

use std::sync::Mutex;

use http::header::{AUTHORIZATION, COOKIE, HOST};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue};
use wildmatch::WildMatch;

use super::state::{Action, Condition, ControlPlane, Listener, WeightedTargetGroup};

/// What to do with a request.
#[derive(Debug, PartialEq, Eq)]
pub enum Decision {
    /// Send it to a target of this group.
    Forward(String),
    /// Answer it with a redirect to this URL.
    Redirect { location: String, status: u16 },
    FixedResponse {
        status: u16,
        content_type: String,
        body: String,
    },
    /// There is no action, or a forward action whose weights are all zero.
    Nothing,
}

/// The local ports of the load balancer.
#[derive(Debug, Clone, Copy)]
pub struct Ports {
    /// For the listeners of port 80.
    pub http: u16,
    /// For the listeners of port 443.
    pub https: u16,
}

/// The parts of a request that routing depends on.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    pub scheme: &'a str,
    /// The port that the client connected to.
    pub port: u16,
    pub path_and_query: &'a PathAndQuery,
    pub headers: &'a HeaderMap,
}

impl Request<'_> {
    /// Whether a login or a token comes with it. Which one is not checked.
    /// <https://docs.aws.amazon.com/elasticloadbalancing/latest/application/listener-authenticate-users.html>
    fn is_known(&self) -> bool {
        let has_session = |cookies: &HeaderValue| {
            String::from_utf8_lossy(cookies.as_bytes()).contains("AWSELBAuthSessionCookie")
        };
        self.headers.contains_key(AUTHORIZATION)
            || self.headers.get_all(COOKIE).iter().any(has_session)
    }

    /// The `Host` header without its port. Clients of a load balancer on port 8443 send the port.
    /// Redirects are written for AWS, where clients do not send one.
    fn host(&self) -> &str {
        let host = self.headers.get(HOST).and_then(|host| host.to_str().ok());
        let host = host.unwrap_or_default();
        match host.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
            _ => host,
        }
    }
}

/// The rules of one load balancer, prepared for matching.
#[derive(Debug, Default)]
pub struct Routes {
    listeners: Vec<ListenerRoutes>,
}

#[derive(Debug)]
struct ListenerRoutes {
    port: u16,
    load_balancer_arn: String,
    rules: Vec<RuleRoute>,
    default: Route,
}

#[derive(Debug)]
struct RuleRoute {
    matchers: Vec<Matcher>,
    route: Route,
}

#[derive(Debug)]
enum Matcher {
    Header(String, Vec<WildMatch>),
    Path(Vec<WildMatch>),
    Never,
}

#[derive(Debug)]
enum Route {
    Authenticated(Box<Route>),
    Forward(Weights),
    Answer(Action),
    Nothing,
}

/// Smooth weighted round robin, as in nginx. The shares are exact in every series of as many requests
/// as the sum of the weights, and no group gets many requests in a row, as it would by random choice.
#[derive(Debug)]
struct Weights {
    groups: Vec<WeightedTargetGroup>,
    credits: Mutex<Vec<i64>>,
}

impl Routes {
    /// The routes of all listeners.
    pub fn new(control_plane: &ControlPlane) -> Self {
        let listeners = control_plane.listeners.iter();
        Routes {
            listeners: listeners.map(ListenerRoutes::new).collect(),
        }
    }

    /// Whether a listener has this port, which is the port on AWS.
    pub fn listens_on(&self, port: u16) -> bool {
        self.listeners.iter().any(|listener| listener.port == port)
    }

    /// The ARN of the load balancer whose listener has this port, which is the port on AWS.
    pub fn load_balancer_arn(&self, port: u16) -> Option<&str> {
        let listener = self.listeners.iter().find(|l| l.port == port)?;
        Some(&listener.load_balancer_arn)
    }

    /// What the listener on `port` (the port on AWS) does with a request. `None` without a listener.
    pub fn decide(&self, port: u16, request: Request<'_>, ports: Ports) -> Option<Decision> {
        let listener = self.listeners.iter().find(|l| l.port == port)?;
        let rule = listener.rules.iter().find(|rule| rule.matches(request));
        let route = rule.map_or(&listener.default, |rule| &rule.route);
        Some(route.decide(request, ports))
    }
}

impl ListenerRoutes {
    fn new(listener: &Listener) -> Self {
        let mut rules: Vec<_> = listener.rules.iter().collect();
        rules.sort_by_key(|rule| rule.priority);
        let rules = rules.into_iter().map(|rule| RuleRoute {
            matchers: rule.conditions.iter().map(Matcher::new).collect(),
            route: Route::new(&rule.actions),
        });
        ListenerRoutes {
            port: listener.port,
            load_balancer_arn: listener.load_balancer_arn.clone(),
            rules: rules.collect(),
            default: Route::new(&listener.default_actions),
        }
    }
}

impl RuleRoute {
    fn matches(&self, request: Request<'_>) -> bool {
        // AWS has no rules without conditions. Such a rule must not match everything.
        !self.matchers.is_empty() && self.matchers.iter().all(|m| m.matches(request))
    }
}

impl Matcher {
    fn new(condition: &Condition) -> Self {
        let insensitive = |values: &[String]| -> Vec<WildMatch> {
            let pattern = |value: &String| WildMatch::new_case_insensitive(value);
            values.iter().map(pattern).collect()
        };
        match condition {
            Condition::HttpHeader { name, values } => {
                Matcher::Header(name.to_ascii_lowercase(), insensitive(values))
            }
            Condition::PathPattern(values) => {
                Matcher::Path(values.iter().map(|value| WildMatch::new(value)).collect())
            }
            Condition::Other(_) => Matcher::Never,
        }
    }

    fn matches(&self, request: Request<'_>) -> bool {
        let any = |patterns: &[WildMatch], text: &str| patterns.iter().any(|p| p.matches(text));
        match self {
            // "If the same header is repeated, they are searched in order until a match is found."
            Matcher::Header(name, patterns) => request
                .headers
                .get_all(name)
                .iter()
                .any(|value| any(patterns, &String::from_utf8_lossy(value.as_bytes()))),
            Matcher::Path(patterns) => any(patterns, request.path_and_query.path()),
            Matcher::Never => false,
        }
    }
}

impl Route {
    fn decide(&self, request: Request<'_>, ports: Ports) -> Decision {
        match self {
            Route::Authenticated(route) if request.is_known() => route.decide(request, ports),
            // AWS redirects to the login, and answers 401 where no token is. Here there is no login to go to.
            Route::Authenticated(_) => Decision::FixedResponse {
                status: 401,
                content_type: "text/plain".to_owned(),
                body: String::new(),
            },
            Route::Forward(weights) => weights.next().map_or(Decision::Nothing, Decision::Forward),
            Route::Answer(action) => answer(action, request, ports),
            Route::Nothing => Decision::Nothing,
        }
    }

    /// The routing action is the last one. Actions before it authenticate.
    fn new(actions: &[Action]) -> Self {
        if let [Action::Authenticate, rest @ ..] = actions {
            return Route::Authenticated(Box::new(Route::new(rest)));
        }
        match actions.last() {
            Some(Action::Forward(groups)) => Route::Forward(Weights {
                credits: Mutex::new(vec![0; groups.len()]),
                groups: groups.clone(),
            }),
            Some(action) => Route::Answer(action.clone()),
            None => Route::Nothing,
        }
    }
}

impl Weights {
    fn next(&self) -> Option<String> {
        let total: i64 = self
            .groups
            .iter()
            .map(|group| i64::from(group.weight))
            .sum();
        if total == 0 {
            return None;
        }
        let mut credits = self.credits.lock().unwrap_or_else(|p| p.into_inner());
        for (credit, group) in credits.iter_mut().zip(&self.groups) {
            *credit += i64::from(group.weight);
        }
        // The first group with the most credit, so that equal weights start with the first group.
        let most_credit = (0..credits.len()).rev().max_by_key(|i| credits[*i])?;
        credits[most_credit] -= total;
        Some(self.groups[most_credit].arn.clone())
    }
}

fn answer(action: &Action, request: Request<'_>, ports: Ports) -> Decision {
    match action {
        Action::Forward(_) | Action::Authenticate => Decision::Nothing,
        Action::FixedResponse {
            status,
            content_type,
            body,
        } => Decision::FixedResponse {
            status: *status,
            content_type: content_type.clone(),
            body: body.clone(),
        },
        Action::Redirect {
            protocol,
            port,
            host,
            path,
            query,
            status,
        } => {
            let original = |keyword: &str| match keyword {
                "protocol" => request.scheme.to_uppercase(),
                "port" => request.port.to_string(),
                "host" => request.host().to_string(),
                "path" => request
                    .path_and_query
                    .path()
                    .trim_start_matches('/')
                    .to_string(),
                _ => request
                    .path_and_query
                    .query()
                    .unwrap_or_default()
                    .to_string(),
            };
            let part = |template: &Option<String>, default: &str| {
                let mut text = template.as_deref().unwrap_or(default).to_string();
                for keyword in ["protocol", "port", "host", "path", "query"] {
                    text = text.replace(&format!("#{{{keyword}}}"), &original(keyword));
                }
                text
            };
            // A template contains 80 or 443, but the local listeners have other ports. A client that
            // follows the redirect must reach the same listener as on AWS. The rest of the URL stays
            // unchanged.
            let port = match part(port, "#{port}").as_str() {
                "80" => ports.http.to_string(),
                "443" => ports.https.to_string(),
                other => other.to_string(),
            };
            let mut location = format!(
                "{}://{}:{port}{}",
                part(protocol, "#{protocol}").to_lowercase(),
                part(host, "#{host}"),
                part(path, "/#{path}"),
            );
            let query = part(query, "#{query}");
            if !query.is_empty() {
                location = format!("{location}?{query}");
            }
            Decision::Redirect {
                location,
                status: *status,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load_balancer::state::Rule;
    use crate::load_balancer::test_support::{forward_to, listener};

    const PORTS: Ports = Ports {
        http: 8080,
        https: 8443,
    };

    fn header(name: &str, values: &[&str]) -> Condition {
        Condition::HttpHeader {
            name: name.to_string(),
            values: values.iter().map(|value| value.to_string()).collect(),
        }
    }

    fn rule(priority: u32, conditions: Vec<Condition>, action: Action) -> Rule {
        Rule {
            arn: format!("arn:rule/{priority}"),
            priority,
            conditions,
            actions: vec![action],
        }
    }

    fn routes(rules: Vec<Rule>, default: Action) -> Routes {
        let control_plane = ControlPlane {
            listeners: vec![listener(443, rules, vec![default])],
            ..ControlPlane::default()
        };
        Routes::new(&control_plane)
    }

    #[test]
    fn what_comes_after_a_login_is_for_those_who_are_known() {
        let forward = forward_to(&[("a", 1)]);
        let answers = Action::FixedResponse {
            status: 200,
            content_type: "text/plain".to_owned(),
            body: "ok".to_owned(),
        };
        let guarded = |action: &Action| vec![Action::Authenticate, action.clone()];
        let by_path = Rule {
            actions: guarded(&answers),
            ..rule(
                1,
                vec![Condition::PathPattern(vec!["/fixed".into()])],
                answers.clone(),
            )
        };
        let routes = Routes::new(&ControlPlane {
            listeners: vec![listener(443, vec![by_path], guarded(&forward))],
            ..ControlPlane::default()
        });
        for url in ["/", "/fixed"] {
            for (headers, is_known) in [
                (&[][..], false),
                (&[("cookie", "a=1")], false),
                (&[("cookie", "a=1; AWSELBAuthSessionCookie-0=x")], true),
                (&[("authorization", "Bearer x")], true),
            ] {
                let decision = decide(&routes, url, headers);
                let refused = matches!(decision, Decision::FixedResponse { status: 401, .. });
                assert_eq!(refused, !is_known, "{url} {headers:?}: {decision:?}");
            }
        }
    }

    fn decide(routes: &Routes, url: &str, headers: &[(&'static str, &str)]) -> Decision {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        let request = Request {
            scheme: "https",
            port: 8443,
            path_and_query: &url.parse().unwrap(),
            headers: &map,
        };
        routes.decide(443, request, PORTS).expect("a listener")
    }

    fn forwarded(routes: &Routes, url: &str, headers: &[(&'static str, &str)]) -> String {
        match decide(routes, url, headers) {
            Decision::Forward(arn) => arn,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_rule_with_the_lowest_priority_that_matches_wins() {
        let pinned = |value| vec![header("X-Pulse-Render-Affinity", &[value])];
        let routes = routes(
            vec![
                rule(20100, pinned("*"), forward_to(&[("late", 1)])),
                rule(101, pinned("v2"), forward_to(&[("v2", 1)])),
                rule(100, pinned("v1"), forward_to(&[("v1", 1)])),
            ],
            forward_to(&[("default", 1)]),
        );
        let to = |value| forwarded(&routes, "/", &[("x-pulse-render-affinity", value)]);
        assert_eq!(to("v1"), "v1");
        assert_eq!(to("v2"), "v2");
        assert_eq!(to("v3"), "late");
        assert_eq!(forwarded(&routes, "/", &[]), "default");
    }

    #[test]
    fn header_names_and_values_match_regardless_of_case() {
        let routes = routes(
            vec![rule(
                1,
                vec![header(
                    "X-PULSE-Render-Affinity",
                    &["Test-20251027-122112Z"],
                )],
                forward_to(&[("pinned", 1)]),
            )],
            forward_to(&[("default", 1)]),
        );
        let headers = [("x-pulse-render-affinity", "test-20251027-122112z")];
        assert_eq!(forwarded(&routes, "/", &headers), "pinned");
    }

    #[test]
    fn a_cookie_rule_matches_its_cookie_among_others() {
        let pattern = "*X-Pulse-Render-Affinity=test-1*";
        let routes = routes(
            vec![rule(
                1,
                vec![header("Cookie", &[pattern])],
                forward_to(&[("pinned", 1)]),
            )],
            forward_to(&[("default", 1)]),
        );
        let to = |cookie| forwarded(&routes, "/", &[("cookie", cookie)]);
        assert_eq!(to("a=b; X-Pulse-Render-Affinity=test-1; c=d"), "pinned");
        assert_eq!(to("X-Pulse-Render-Affinity=test-1"), "pinned");
        assert_eq!(to("X-Pulse-Render-Affinity=test-2"), "default");
    }

    #[test]
    fn every_value_of_a_repeated_header_is_matched_and_a_question_mark_is_one_character() {
        let routes = routes(
            vec![rule(
                1,
                vec![header("x-version", &["v?", "latest"])],
                forward_to(&[("versioned", 1)]),
            )],
            forward_to(&[("default", 1)]),
        );
        let twice = [("x-version", "old"), ("x-version", "v2")];
        assert_eq!(forwarded(&routes, "/", &twice), "versioned");
        let to = |value| forwarded(&routes, "/", &[("x-version", value)]);
        assert_eq!(to("latest"), "versioned");
        assert_eq!(to("v"), "default");
        assert_eq!(to("v10"), "default");
    }

    #[test]
    fn all_conditions_of_a_rule_must_hold() {
        let routes = routes(
            vec![
                rule(
                    1,
                    vec![
                        header("host", &["*.Example.com"]),
                        Condition::PathPattern(vec!["/img/*".into()]),
                    ],
                    forward_to(&[("images", 1)]),
                ),
                rule(
                    2,
                    vec![Condition::Other("source-ip".into())],
                    forward_to(&[("no", 1)]),
                ),
                rule(3, vec![], forward_to(&[("no", 1)])),
            ],
            forward_to(&[("default", 1)]),
        );
        let to = |url, host| forwarded(&routes, url, &[("host", host)]);
        assert_eq!(to("/img/a.png", "test.example.com"), "images");
        assert_eq!(to("/img/a.png?x=1", "test.example.COM"), "images");
        // Paths are case-sensitive, and the query is not matched.
        assert_eq!(to("/IMG/a.png", "test.example.com"), "default");
        assert_eq!(to("/?a=/img/", "test.example.com"), "default");
        assert_eq!(to("/img/a.png", "example.com"), "default");
    }

    #[test]
    fn requests_are_split_exactly_by_weight() {
        let routes = routes(vec![], forward_to(&[("a", 3), ("b", 1), ("c", 0)]));
        let to: Vec<_> = (0..8).map(|_| forwarded(&routes, "/", &[])).collect();
        assert_eq!(to.iter().filter(|arn| *arn == "a").count(), 6);
        assert_eq!(to.iter().filter(|arn| *arn == "b").count(), 2);
        assert_eq!(to[..4].iter().filter(|arn| *arn == "b").count(), 1);
    }

    #[test]
    fn a_forward_whose_weights_are_all_zero_gives_nothing() {
        let routes = routes(vec![], forward_to(&[("a", 0)]));
        assert_eq!(decide(&routes, "/", &[]), Decision::Nothing);
    }

    fn redirect(port: &str, path: Option<&str>) -> Action {
        Action::Redirect {
            protocol: Some("HTTPS".into()),
            port: Some(port.into()),
            host: None,
            path: path.map(str::to_string),
            query: None,
            status: 301,
        }
    }

    fn location(action: Action, url: &str, host: &str) -> String {
        match decide(&routes(vec![], action), url, &[("host", host)]) {
            Decision::Redirect { location, .. } => location,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_redirect_to_443_goes_to_the_local_https_port_and_keeps_the_rest() {
        assert_eq!(
            location(redirect("443", None), "/a/b?c=d&e", "localhost:8080"),
            "https://localhost:8443/a/b?c=d&e"
        );
        assert_eq!(
            location(redirect("443", None), "/", "test.example.com"),
            "https://test.example.com:8443/"
        );
    }

    #[test]
    fn a_redirect_fills_in_the_parts_of_the_request() {
        let action = redirect("#{port}", Some("/new/#{path}/#{host}"));
        assert_eq!(
            location(action, "/a?q=1", "localhost"),
            "https://localhost:8443/new/a/localhost?q=1"
        );
        assert_eq!(
            location(redirect("9000", None), "/", "localhost"),
            "https://localhost:9000/"
        );
    }
}
