//! The JSON Schemas of the settings and of the input, made of the types that read them.

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema};
use serde_json::{Value, json};

use crate::{Fields, fargate};

/// The schema of an environment's settings.
pub fn settings() -> Value {
    let mut schema = of::<Fields>("Settings of pulse-deploy");
    schema["properties"]["$schema"] = json!({"type": "string"});
    schema["properties"]["frozen"] = json!({
        "description": "Why nothing is deployed for now.",
        "type": ["string", "null"], "minLength": 1, "maxLength": crate::freeze::MAX_REASON,
    });
    schema
}

/// The schema of an execution's input.
pub fn input() -> Value {
    let mut schema = of::<crate::input::Flat>("Input of a deployment of pulse-deploy");
    let fields = &mut schema["properties"];
    fields["deploymentId"]["pattern"] = "^[a-z][a-z0-9-]{0,13}[a-z0-9]-[0-9]{8}-[0-9]{6}Z$".into();
    fields["imageDigest"]["pattern"] = "^sha256:[0-9a-f]{64}$".into();
    schema
}

/// What the types do not say by themselves is added, as far as a single field goes. Editors show it; the functions
/// check more.
fn of<T: JsonSchema>(title: &str) -> Value {
    let schema: Schema = SchemaSettings::draft2020_12()
        .with(|settings| settings.inline_subschemas = true)
        .into_generator()
        .into_root_schema_for::<T>();
    let mut schema = schema.to_value();
    schema["title"] = title.into();
    let fields = &mut schema["properties"];
    let between = |field: &mut Value, least: u32, most: u32| {
        field["minimum"] = least.into();
        field["maximum"] = most.into();
    };
    between(
        &mut fields["desiredCount"],
        1,
        lifecycle::defaults::MAX_TASKS,
    );
    between(
        &mut fields["stickiness"],
        1,
        crate::check::MAX_STICKINESS_SECONDS,
    );
    fields["cpu"]["enum"] = fargate::cpus().collect();
    fields["base"]["pattern"] = "^[A-Za-z0-9_-]{1,240}$".into();
    for list in ["command", "entryPoint"] {
        fields[list]["minItems"] = 1.into();
    }
    for names in ["environment", "secrets"] {
        fields[names]["propertyNames"] = json!({"pattern": "^[A-Za-z_][A-Za-z0-9_]*$"});
    }
    let release = &mut fields["release"]["properties"];
    release["command"]["minItems"] = 1.into();
    between(
        &mut release["timeoutSeconds"],
        1,
        lifecycle::defaults::MAX_WAIT_SECONDS,
    );
    let scaling = &mut fields["scaling"]["properties"];
    between(&mut scaling["max"], 1, lifecycle::defaults::MAX_TASKS);
    between(&mut scaling["cpuPercent"], 1, 100);
    between(
        &mut scaling["requestsPerTarget"],
        1,
        crate::check::MAX_REQUESTS_PER_TARGET,
    );
    fields["scaling"]["oneOf"] = json!([
        {"type": "null"},
        {"type": "object", "required": ["cpuPercent"]},
        {"type": "object", "required": ["requestsPerTarget"]},
    ]);
    let watch = &mut fields["watch"]["properties"];
    between(
        &mut watch["seconds"],
        0,
        lifecycle::defaults::MAX_WATCH_SECONDS,
    );
    watch["alarms"]["maxItems"] = crate::check::MAX_ALARMS.into();
    watch["alarms"]["uniqueItems"] = true.into();
    let errors = &mut watch["errors"];
    errors["required"] = json!(["percent"]);
    between(&mut errors["properties"]["percent"], 1, 99);
    between(
        &mut errors["properties"]["atLeast"],
        1,
        crate::check::MAX_AT_LEAST,
    );
    let health = &mut fields["health"]["properties"];
    health["path"]["pattern"] = "^/".into();
    let most = lifecycle::defaults::MAX_WAIT_SECONDS;
    between(&mut health["timeoutSeconds"], 60, most);
    between(
        &mut health["graceSeconds"],
        0,
        crate::check::MAX_GRACE_SECONDS,
    );
    before_the_switch(fields);
    schema
}

/// What a candidate has to pass before traffic moves to it.
fn before_the_switch(fields: &mut Value) {
    use crate::check::{MAX_CONTAINED, MAX_HOOKS, MAX_SMOKE_TESTS};
    fields["smoke"]["maxItems"] = MAX_SMOKE_TESTS.into();
    let test = &mut fields["smoke"]["items"]["properties"];
    test["path"]["pattern"] = "^/[^ #]*$".into();
    test["status"]["minimum"] = 200.into();
    test["status"]["maximum"] = 599.into();
    test["contains"]["minLength"] = 1.into();
    test["contains"]["maxLength"] = MAX_CONTAINED.into();
    fields["hooks"]["maxItems"] = MAX_HOOKS.into();
    let approve = &mut fields["approve"]["properties"];
    approve["timeoutSeconds"]["minimum"] = 60.into();
    approve["timeoutSeconds"]["maximum"] = lifecycle::defaults::MAX_APPROVAL_SECONDS.into();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_editor_knows_every_field_and_its_bounds() {
        let (settings, input) = (settings(), input());
        assert_eq!(settings["title"], "Settings of pulse-deploy");
        assert_eq!(settings["properties"]["$schema"]["type"], "string");
        let id = input["properties"]["deploymentId"]["pattern"].as_str();
        assert!(id.is_some_and(|it| it.starts_with('^') && it.ends_with('$')));
        for schema in [settings, input] {
            assert_eq!(schema["additionalProperties"], false);
            assert_eq!(schema["properties"]["desiredCount"]["maximum"], 1000);
            let smoke = &schema["properties"]["smoke"];
            assert_eq!(smoke["maxItems"], 10);
            assert_eq!(smoke["items"]["properties"]["status"]["maximum"], 599);
            assert_eq!(schema["properties"]["hooks"]["maxItems"], 5);
            let approve = &schema["properties"]["approve"]["properties"];
            assert_eq!(approve["timeoutSeconds"]["maximum"], 43_200);
        }
    }
}
