use super::*;

#[test]
fn the_same_seed_draws_the_same_cases_and_another_seed_draws_others() {
    let points: Vec<_> = (1..=5)
        .flat_map(|nth| {
            ["DescribeRules", "CreateRule"].map(|operation| Point {
                function: "create-listener-rule".into(),
                service: "elasticloadbalancing".into(),
                operation: operation.into(),
                nth,
            })
        })
        .collect();
    let cases = super::cases(Workflow::Push, &points);
    // Ten faults at a read, nine at a write, one panic, and two faults of an event.
    assert_eq!(cases.len(), 5 * 10 + 5 * 9 + 1 + 2);
    let drawn = sample(cases.clone(), 7, 10);
    assert_eq!(drawn, sample(cases.clone(), 7, 10));
    assert_ne!(drawn, sample(cases.clone(), 8, 10));
    assert_eq!(sample(cases.clone(), 7, usize::MAX).len(), cases.len());
}

#[test]
fn pairs_are_two_calls_of_one_workflow_and_the_same_for_the_same_seed() {
    let point = |function: &str, operation: &str| Point {
        function: function.into(),
        service: "ecs".into(),
        operation: operation.into(),
        nth: 1,
    };
    let deploy = [point("create-service", "CreateService")];
    let cleanup = [
        point("delete-deployment", "DeleteService"),
        point("drain-deployment", "DescribeTasks"),
    ];
    let mut all = cases(Workflow::Deploy, &deploy);
    all.extend(cases(Workflow::Cleanup, &cleanup));
    let drawn = pairs(&all, 7, 10);
    assert_eq!(drawn.len(), 10);
    assert_eq!(drawn, pairs(&all, 7, 10));
    for pair in &drawn {
        assert_eq!(pair.workflow, Workflow::Cleanup, "{pair}");
        let [Injection::Call(one, _), Injection::Call(other, _)] = &pair.injections[..] else {
            panic!("{pair}");
        };
        assert_ne!(one, other);
    }
}

#[test]
fn reads_whose_number_depends_on_time_are_not_points() {
    let call = |function: &str, operation: &str| Call {
        number: 0,
        service: "ecs".into(),
        operation: operation.into(),
        caller: String::new(),
        function: Some(format!("test-{function}")),
        status: Some(200),
        fault: None,
    };
    let mut calls = vec![call("check-target-health", "DescribeServices"); 5];
    calls.push(call("create-service", "CreateService"));
    calls.push(call("delete-deployment", "DeleteService"));
    calls.push(call("create-service", "DescribeServices"));
    let names: Vec<_> = points(Workflow::Deploy, "test", &calls)
        .iter()
        .map(Point::to_string)
        .collect();
    assert_eq!(
        names,
        [
            "check-target-health ecs:DescribeServices #1",
            "check-target-health ecs:DescribeServices #2",
            "create-service ecs:CreateService #1",
            "create-service ecs:DescribeServices #1",
        ]
    );
}
