//! The task definition that a deployment copies: whether Fargate can run it with an image of ours, and what it
//! brings along.
//!
//! It is read as JSON, because it may have members that are newer than the SDK.

use std::collections::BTreeSet;

use lifecycle::printable::printable;
use lifecycle::{defaults, raw_task_definition};
use serde_json::Value;

/// The log drivers of Fargate.
const LOG_DRIVERS: [&str; 3] = ["awslogs", "splunk", "awsfirelens"];

/// What Fargate does not take of a task:
/// <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/fargate-tasks-services.html>.
const NOT_OF_A_TASK: [&str; 3] = ["placementConstraints", "ipcMode", "inferenceAccelerators"];
/// The same of a volume. One that is configured at launch would have to be named by each service.
const NOT_OF_A_VOLUME: [&str; 4] = [
    "dockerVolumeConfiguration",
    "fsxWindowsFileServerVolumeConfiguration",
    "host.sourcePath",
    "configuredAtLaunch",
];
/// The same of a container.
const NOT_OF_A_CONTAINER: [&str; 13] = [
    "disableNetworking",
    "dnsSearchDomains",
    "dnsServers",
    "dockerSecurityOptions",
    "extraHosts",
    "hostname",
    "links",
    "privileged",
    "linuxParameters.devices",
    "linuxParameters.maxSwap",
    "linuxParameters.sharedMemorySize",
    "linuxParameters.swappiness",
    "linuxParameters.tmpfs",
];

/// A task definition that a deployment copies, checked.
pub(crate) struct Base<'a> {
    /// The ARN of its revision.
    pub(crate) arn: &'a str,
    /// CPU units, if it says so.
    pub(crate) cpu: Option<u32>,
    /// MiB, if it says so.
    pub(crate) memory: Option<u32>,
    app: &'a Value,
    definition: &'a Value,
}

impl<'a> Base<'a> {
    /// Checks a task definition as AWS describes it.
    ///
    /// # Errors
    /// What keeps a deployment from copying it.
    pub(crate) fn read(definition: &'a Value) -> Result<Self, String> {
        let arn = definition["taskDefinitionArn"].as_str().unwrap_or_default();
        let refused = |why| format!("the task definition {}: {why}", printable(arn, 400));
        check(definition).map_err(refused)?;
        let app = containers(definition).find(|it| it["name"] == defaults::CONTAINER);
        let app = app.ok_or_else(|| {
            refused(format!(
                "has no container `{}`, which is the one that gets the image",
                defaults::CONTAINER
            ))
        })?;
        check_app(definition, app).map_err(refused)?;
        let size = |member: &str| match definition[member].as_str() {
            None => Ok(None),
            Some(text) => text.parse().map(Some).map_err(|_| {
                refused(format!(
                    "its `{member}` is `{}`, not a whole number",
                    printable(text, 40)
                ))
            }),
        };
        Ok(Base {
            arn,
            cpu: size("cpu")?,
            memory: size("memory")?,
            app,
            definition,
        })
    }

    /// The names of the variables of the container `app` in that list, without those that the deployment sets.
    pub(crate) fn names(&self, list: &str) -> BTreeSet<&'a str> {
        raw_task_definition::names(self.app, list)
    }

    /// The length of it as JSON.
    pub(crate) fn bytes(&self) -> usize {
        self.definition.to_string().len()
    }

    /// What the containers reserve has to fit into the task.
    ///
    /// # Errors
    /// What does not.
    pub(crate) fn check_fits(&self, cpu: u32, memory: u32) -> Result<(), String> {
        let sum = |members: &[&str]| -> i64 {
            let of = |it: &Value| members.iter().find_map(|member| it[*member].as_i64());
            containers(self.definition).filter_map(of).sum()
        };
        let most = containers(self.definition).filter_map(|it| it["memory"].as_i64());
        let reserved = sum(&["memoryReservation", "memory"]).max(most.max().unwrap_or_default());
        for (what, needed, has) in [("CPU units", sum(&["cpu"]), cpu), ("MiB", reserved, memory)] {
            if needed > i64::from(has) {
                return Err(format!(
                    "the containers of {} reserve {needed} {what}, and a task has {has}",
                    self.arn
                ));
            }
        }
        Ok(())
    }
}

fn containers(definition: &Value) -> impl Iterator<Item = &Value> {
    list(&definition["containerDefinitions"]).iter()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// Whether a member says something. AWS shows some that were never set, as empty ones.
fn is_set(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => false,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(all) => !all.is_empty(),
        Value::Object(_) | Value::Bool(true) => true,
    }
}

/// The first of these members that is set. A dot leads into a member.
fn first_set<'a>(of: &Value, members: &[&'a str]) -> Option<&'a str> {
    let is_it = |member: &&&str| {
        let path = format!("/{}", member.replace('.', "/"));
        of.pointer(&path).is_some_and(is_set)
    };
    members.iter().find(is_it).copied()
}

fn name(of: &Value) -> String {
    printable(of["name"].as_str().unwrap_or_default(), 100)
}

fn check(definition: &Value) -> Result<(), String> {
    let not_on_fargate = |what: String| Err(format!("Fargate does not take {what}"));
    if let Some(member) = first_set(definition, &NOT_OF_A_TASK) {
        return not_on_fargate(format!("its `{member}`"));
    }
    if is_set(&definition["pidMode"]) && definition["pidMode"] != "task" {
        return not_on_fargate("its `pidMode`, unless it is `task`".to_owned());
    }
    if definition["networkMode"] != "awsvpc" {
        return not_on_fargate("its `networkMode`: it must be `awsvpc`".to_owned());
    }
    for volume in list(&definition["volumes"]) {
        match first_set(volume, &NOT_OF_A_VOLUME) {
            Some("configuredAtLaunch") => {
                return Err(format!(
                    "its volume `{}` is configured at launch (`configuredAtLaunch`), which a deployment does not do",
                    name(volume)
                ));
            }
            Some(member) => {
                return not_on_fargate(format!("`{member}` of its volume `{}`", name(volume)));
            }
            None => {}
        }
    }
    for container in containers(definition) {
        let of_it = format!("of its container `{}`", name(container));
        if let Some(member) = first_set(container, &NOT_OF_A_CONTAINER) {
            return not_on_fargate(format!("`{member}` {of_it}"));
        }
        if is_set(&container["resourceRequirements"]) {
            return not_on_fargate(format!("`resourceRequirements` {of_it}"));
        }
        let added = list(&container["linuxParameters"]["capabilities"]["add"]);
        if added.iter().any(|it| it != "SYS_PTRACE") {
            return not_on_fargate(format!(
                "`linuxParameters.capabilities.add` {of_it}, unless it is `SYS_PTRACE`"
            ));
        }
        let driver = &container["logConfiguration"]["logDriver"];
        let is_replaced = container["name"] == defaults::CONTAINER;
        if is_set(driver) && !is_replaced && !LOG_DRIVERS.iter().any(|it| driver == it) {
            return not_on_fargate(format!(
                "the log driver {of_it}: it must be {}",
                LOG_DRIVERS.join(", ")
            ));
        }
    }
    Ok(())
}

/// What the container that gets the image must not say.
fn check_app(definition: &Value, app: &Value) -> Result<(), String> {
    let restarts = &app["restartPolicy"];
    if restarts.is_object() && restarts["enabled"] != false {
        return Err(format!(
            "its container `{}` has a `restartPolicy`, with which a crash stops no task, so that nothing would see it",
            defaults::CONTAINER
        ));
    }
    if app["essential"] == false {
        return Err(format!(
            "its container `{}` is not essential, so that a crash would stop no task and nothing would see it",
            defaults::CONTAINER
        ));
    }
    let mut others = containers(definition).filter(|it| it["name"] != defaults::CONTAINER);
    let listens = |it: &&Value| {
        list(&it["portMappings"])
            .iter()
            .any(|mapping| mapping["containerPort"] == defaults::PORT)
    };
    match others.find(listens) {
        Some(other) => Err(format!(
            "its container `{}` has port {}, which is that of `{}`",
            name(other),
            defaults::PORT,
            defaults::CONTAINER
        )),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// As AWS shows it, with empty members, and with one that nobody knows yet.
    fn base() -> Value {
        json!({
            "taskDefinitionArn": "arn:aws:ecs:us-east-1:1:task-definition/web:3",
            "family": "web", "revision": 3, "networkMode": "awsvpc", "cpu": "2048", "memory": "4096",
            "ipcMode": "", "pidMode": "", "placementConstraints": [],
            "volumes": [{"name": "data", "host": {}}, {"name": "files", "efsVolumeConfiguration": {"fileSystemId": "fs-1"}}],
            "containerDefinitions": [
                {
                    "name": "app", "image": "web:1", "cpu": 0, "essential": true, "links": [],
                    "portMappings": [{"containerPort": 8000}],
                    "environment": [{"name": "A", "value": "1"}, {"name": "PORT", "value": "3000"}],
                    "secrets": [{"name": "B", "valueFrom": "/b"}],
                    "logConfiguration": {"logDriver": "json-file"},
                    "restartPolicy": {"enabled": false},
                },
                {
                    "name": "proxy", "image": "proxy:1", "cpu": 256, "memoryReservation": 512, "memory": 1024,
                    "linuxParameters": {"capabilities": {"add": ["SYS_PTRACE"]}, "initProcessEnabled": true},
                    "restartPolicy": {"enabled": true},
                },
            ],
            "newMember": {"unknown": "to us"},
        })
    }

    #[test]
    fn what_fargate_takes_is_accepted_with_what_it_brings_along() {
        let definition = base();
        let base = Base::read(&definition).unwrap();
        assert_eq!((base.cpu, base.memory), (Some(2048), Some(4096)));
        assert_eq!(base.names("environment"), BTreeSet::from(["A"]));
        assert_eq!(base.names("secrets"), BTreeSet::from(["B"]));
        let mut definition = definition.clone();
        definition["pidMode"] = json!("task");
        assert!(Base::read(&definition).is_ok());
    }

    #[test]
    fn what_a_deployment_cannot_copy_is_refused_by_name() {
        type Change = fn(&mut Value);
        fn container(base: &mut Value, index: usize) -> &mut Value {
            &mut base["containerDefinitions"][index]
        }
        let cases: [(&str, Change); 28] = [
            ("`placementConstraints`", |it| {
                it["placementConstraints"] = json!([{"type": "memberOf"}]);
            }),
            ("`ipcMode`", |it| it["ipcMode"] = json!("host")),
            ("`pidMode`", |it| it["pidMode"] = json!("host")),
            ("`inferenceAccelerators`", |it| {
                it["inferenceAccelerators"] = json!([{}]);
            }),
            ("`networkMode`", |it| it["networkMode"] = json!("bridge")),
            ("`dockerVolumeConfiguration` of its volume `data`", |it| {
                it["volumes"][0]["dockerVolumeConfiguration"] = json!({"scope": "task"});
            }),
            ("`host.sourcePath`", |it| {
                it["volumes"][0]["host"] = json!({"sourcePath": "/var"});
            }),
            ("`fsxWindowsFileServerVolumeConfiguration`", |it| {
                it["volumes"][0]["fsxWindowsFileServerVolumeConfiguration"] = json!({});
            }),
            ("`configuredAtLaunch`", |it| {
                it["volumes"][0]["configuredAtLaunch"] = json!(true);
            }),
            ("`disableNetworking`", |it| {
                container(it, 1)["disableNetworking"] = json!(true);
            }),
            ("`dnsServers` of its container `proxy`", |it| {
                container(it, 1)["dnsServers"] = json!(["1.1.1.1"]);
            }),
            ("`dnsSearchDomains`", |it| {
                container(it, 0)["dnsSearchDomains"] = json!(["local"]);
            }),
            ("`dockerSecurityOptions`", |it| {
                container(it, 0)["dockerSecurityOptions"] = json!(["no-new-privileges"]);
            }),
            ("`extraHosts`", |it| {
                container(it, 0)["extraHosts"] = json!([{}])
            }),
            ("`hostname`", |it| {
                container(it, 0)["hostname"] = json!("web")
            }),
            ("`links`", |it| container(it, 0)["links"] = json!(["proxy"])),
            ("`privileged`", |it| {
                container(it, 0)["privileged"] = json!(true)
            }),
            ("`linuxParameters.devices`", |it| {
                container(it, 0)["linuxParameters"] = json!({"devices": [{}]});
            }),
            ("`linuxParameters.tmpfs`", |it| {
                container(it, 0)["linuxParameters"] = json!({"tmpfs": [{}]});
            }),
            ("`linuxParameters.maxSwap`", |it| {
                container(it, 0)["linuxParameters"] = json!({"maxSwap": 1});
            }),
            ("`linuxParameters.swappiness`", |it| {
                container(it, 0)["linuxParameters"] = json!({"swappiness": 60});
            }),
            ("`linuxParameters.sharedMemorySize`", |it| {
                container(it, 0)["linuxParameters"] = json!({"sharedMemorySize": 64});
            }),
            ("`linuxParameters.capabilities.add`", |it| {
                container(it, 0)["linuxParameters"] =
                    json!({"capabilities": {"add": ["NET_ADMIN"]}});
            }),
            ("`resourceRequirements`", |it| {
                container(it, 0)["resourceRequirements"] = json!([{"type": "GPU", "value": "1"}]);
            }),
            ("the log driver of its container `proxy`", |it| {
                container(it, 1)["logConfiguration"] = json!({"logDriver": "json-file"});
            }),
            ("has no container `app`", |it| {
                container(it, 0)["name"] = json!("web");
                container(it, 0)["logConfiguration"] = Value::Null;
            }),
            ("`restartPolicy`", |it| {
                container(it, 0)["restartPolicy"]["enabled"] = json!(true);
            }),
            ("is not essential", |it| {
                container(it, 0)["essential"] = json!(false)
            }),
        ];
        for (what, change) in cases {
            let mut definition = base();
            change(&mut definition);
            let refused = Base::read(&definition).err().expect(what);
            assert!(refused.contains(what), "{what}: {refused}");
            assert!(refused.contains("task-definition/web:3"), "{refused}");
        }
        let mut definition = base();
        container(&mut definition, 1)["portMappings"] = json!([{"containerPort": 8000}]);
        let refused = Base::read(&definition).err().expect("the port");
        assert!(refused.contains("`proxy` has port 8000"), "{refused}");
        definition = base();
        definition["cpu"] = json!("two");
        assert!(Base::read(&definition).is_err());
    }

    #[test]
    fn what_the_containers_reserve_fits_into_the_task() {
        let mut definition = base();
        definition["containerDefinitions"][0]["memory"] = json!(512);
        let base = Base::read(&definition).unwrap();
        assert_eq!(base.check_fits(256, 1024), Ok(()));
        let refused = base.check_fits(255, 1024).unwrap_err();
        assert!(refused.contains("256 CPU units"), "{refused}");
        let refused = base.check_fits(256, 1023).unwrap_err();
        assert!(refused.contains("1024 MiB"), "{refused}");
    }
}
