//! The drain secret goes from Secrets Manager to the tasks and to the function that drains them. It
//! cannot be read anywhere else.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::Method;
use percent_encoding::percent_decode_str;
use scenarios::machines::{drain_record, outcome};
use scenarios::queues::{dead_letters, messages, subscribe, subscribe_to_failures};
use scenarios::traces::{Trace, drain_secret, read};
use scenarios::{Execution, TestEnvironment};
use serde_json::{Value, json};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_drain_secret_cannot_be_read_anywhere_after_all_machines_ran() -> Result<()> {
    let env = TestEnvironment::deploy_keeping_no_previous().await?;
    let events = subscribe(&env).await?;
    let failures = subscribe_to_failures(&env).await?;
    let secret = drain_secret(&env).await?;
    assert!(secret.len() >= 32, "a secret of {}", secret.len());

    // Two deployments and a rollback. What it replaced is drained and deleted.
    let first = env.deploy_live(&[]).await?.name;
    let second = env.deploy_live(&[]).await?.name;
    let rollback = env.run("rollback", &json!({"evict": false})).await?;
    assert_eq!(rollback.ending(), "Succeeded", "{}", rollback.cause);
    let tasks = env.tasks_running(&second, 2).await?;
    let sweep = env.clean_up().await?;
    assert_eq!(outcome(&sweep, &second)?.0, "draining");
    for task in &tasks {
        // They accepted the secret from Secrets Manager.
        assert_eq!(drain_record(task).await?["draining"], true, "{task:?}");
    }
    let sweep = env.clean_up_later().await?;
    assert_eq!(outcome(&sweep, &second)?.0, "deleted");
    // One that is refused, one that crashes, and one whose event is not delivered.
    let refused = env.start_by_hand("refused", r#"{"drainSecret": 1}"#);
    assert_eq!(refused.await?.ending(), "Refused");
    let crashed = env.push_and_wait(&[("CRASH_ON_START", "3")]).await?;
    assert_eq!(crashed.ending(), "Failed", "{}", crashed.cause);
    let undelivered = push_that_starts_nothing(&env).await?;
    env.wait_until(Duration::from_secs(60), async || {
        Ok(messages(&env, &failures).await? >= 1)
    })
    .await
    .context("the failure was not published to the topic")?;

    let found = read(&env, &[("event", &events), ("failure", &failures)]).await?;
    // A known text is found in each kind of place, which proves that the search reads it.
    let Execution { name: crashed, .. } = crashed;
    let expected = [
        ("machine", "DrainDeployment"),
        ("execution", second.as_str()),
        ("execution", "drainSecret"),
        ("history", &first),
        ("history", &second),
        ("log", &first),
        ("log", &second),
        ("log", &crashed),
        ("event", &second),
        ("failure", &crashed),
        ("dead letter", &undelivered),
        ("dead letter", "NO_PERMISSIONS"),
        ("push event", &first),
        ("task definition", &first),
        ("task definition", &crashed),
        ("service", &first),
        ("task", &first),
        ("target group", &first),
        ("rule", &first),
        ("tags", &first),
        ("function", "DRAIN_SECRET_ARN"),
        ("stack", "DrainSecret"),
        ("secret", "drain-secret"),
    ];
    for (kind, marker) in expected {
        assert!(
            found
                .iter()
                .any(|trace| trace.kind == kind && trace.text.contains(marker)),
            "{marker} is in no {kind}"
        );
    }
    let kinds: BTreeSet<_> = found.iter().map(|trace| trace.kind).collect();
    assert_eq!(kinds, BTreeSet::from(expected.map(|(kind, _)| kind)));
    for function in ["drain-deployment", "switch-traffic", "delete-deployment"] {
        let group = format!("/aws/lambda/test-{function} ");
        let log = found
            .iter()
            .find(|trace| trace.name.starts_with(&group) && !trace.text.is_empty());
        assert!(log.is_some(), "nothing was logged by {function}");
    }

    let search = Search::of(&secret);
    assert_eq!(search.in_all(&found), Vec::<String>::new());
    // A secret in any of these places and forms would have been found.
    for (form, text) in written(&secret) {
        for kind in &kinds {
            let mut planted = found.clone();
            let place = planted
                .iter_mut()
                .find(|trace| trace.kind == *kind)
                .context("no place of this kind")?;
            let middle = place.text.len() / 2;
            let middle = (middle..).find(|at| place.text.is_char_boundary(*at));
            place.text.insert_str(middle.unwrap_or_default(), &text);
            let places = search.in_all(&planted);
            assert_eq!(places.len(), 1, "{form} in {kind}: {places:?}");
        }
    }
    env.tear_down().await;
    Ok(())
}

/// Revokes the rule's permission to invoke start-deployment and pushes. The event ends in the
/// dead-letter queue.
async fn push_that_starts_nothing(env: &TestEnvironment) -> Result<String> {
    let path = "/2015-03-31/functions/test-start-deployment/policy";
    let client = env.cloud.client();
    let policy = client
        .rest("lambda", Method::GET, path, Bytes::new())
        .await?;
    let policy: Value = serde_json::from_slice(&policy)?;
    let policy: Value = serde_json::from_str(policy["Policy"].as_str().context("no policy")?)?;
    for statement in policy["Statement"].as_array().into_iter().flatten() {
        let id = statement["Sid"].as_str().context("no statement id")?;
        let path = format!("{path}/{id}");
        client
            .rest("lambda", Method::DELETE, &path, Bytes::new())
            .await?;
    }
    let started = env.executions().await?.len();
    let id = env.new_id();
    env.push(&id, &[]).await?;
    let queue = dead_letters(env).await?;
    env.wait_until(Duration::from_secs(60), async || {
        Ok(messages(env, &queue).await? >= 1)
    })
    .await
    .context("the undelivered event is not in the dead-letter queue")?;
    ensure!(
        env.executions().await?.len() == started,
        "it was started without permission"
    );
    Ok(id)
}

/// Finds a secret in plain text and in base64, percent-encoded or not.
struct Search {
    forms: Vec<String>,
}

impl Search {
    fn of(secret: &str) -> Search {
        let mut forms = vec![secret.to_owned()];
        // In base64, three bytes are four characters, so that a text has three forms. The characters at
        // its ends are left out, because they contain bits of the neighbouring bytes.
        for before in 0..3 {
            let bytes = [&vec![0; before], secret.as_bytes()].concat();
            for engine in [STANDARD_NO_PAD, URL_SAFE_NO_PAD] {
                let text = engine.encode(&bytes);
                forms.push(text[[0, 2, 3][before]..bytes.len() * 8 / 6].to_owned());
            }
        }
        Search { forms }
    }

    fn is_in(&self, text: &str) -> bool {
        let decoded = percent_decode_str(text).decode_utf8_lossy();
        [Cow::Borrowed(text), decoded]
            .iter()
            .any(|text| self.forms.iter().any(|form| text.contains(form)))
    }

    /// The places that contain the secret.
    fn in_all(&self, traces: &[Trace]) -> Vec<String> {
        traces
            .iter()
            .filter(|trace| self.is_in(&trace.text) || self.is_in(&trace.name))
            .map(|trace| format!("{} {}", trace.kind, trace.name))
            .collect()
    }
}

/// Forms in which a secret may be written by mistake.
fn written(secret: &str) -> Vec<(&'static str, String)> {
    let percent: String = secret.bytes().map(|b| format!("%{b:02x}")).collect();
    let header = format!("Bearer {secret}");
    let basic = STANDARD_NO_PAD.encode(format!("drain:{secret}"));
    vec![
        ("as it is", secret.to_owned()),
        ("as a header", header.clone()),
        ("in base64", STANDARD_NO_PAD.encode(secret)),
        ("as a header in base64", URL_SAFE_NO_PAD.encode(header)),
        ("with a name in base64", basic.clone()),
        ("percent-encoded", percent),
        ("with a name in base64, percent-encoded", {
            basic.bytes().map(|b| format!("%{b:02X}")).collect()
        }),
    ]
}

#[test]
fn a_secret_is_found_in_every_form_and_other_texts_are_not() {
    for secret in ["8f3kQzR1vWx7", "a secret/with+more?", "xyz"] {
        let search = Search::of(secret);
        for (form, text) in written(secret) {
            assert!(search.is_in(&text), "{form}: {text}");
            assert!(search.is_in(&format!("before {text} after")), "{form}");
        }
        for other in ["", "another", "8f3kQzR1vWx", "Bearer 8f3kQzR1vWy7"] {
            assert!(!search.is_in(other), "{other}");
            assert!(!search.is_in(&STANDARD_NO_PAD.encode(other)), "{other}");
        }
    }
}
