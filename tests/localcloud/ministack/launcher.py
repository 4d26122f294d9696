"""Starts MiniStack in this process with the corrections that pulse-deploy's tests depend on.

It changes modules of the MiniStack version that requirements.txt pins. The corrections, each with the AWS
page that it follows:

1. Authorisation as AWS does it: the resource on which an action is checked, with its condition keys,
   and the further actions that a call needs (iam:PassRole, AddTags, TagResource, reading the network,
   a state machine's lambda:InvokeFunction). Also of calls in RPC v2 CBOR, in whose path MiniStack finds no action.
   https://docs.aws.amazon.com/service-authorization/latest/reference/reference_policies_actions-resources-contextkeys.html
2. Authorise only: a request with `x-localcloud-authorise-only` is answered with 204 once it is
   authenticated and allowed, so that the gateway can apply its own rules for allowed callers only.
3. ForwardConfig (weights, stickiness) and LoadBalancerArns are kept.
   https://docs.aws.amazon.com/elasticloadbalancing/latest/APIReference/API_ForwardActionConfig.html
4. A Succeed state's JSONata Output is what the execution returns.
   https://docs.aws.amazon.com/step-functions/latest/dg/state-succeed.html
5. `GET /_localcloud/load-balancing` gives the whole of ELBv2's state in one answer.
6. EventBridge and its scheduler need the permissions for their targets that AWS requires, and send refused
   events to the dead-letter queue. `POST /_localcloud/service-allowed` tells the gateway, which delivers the events of
   pushes, whether a resource's own policy allows a service to do something on behalf of a rule, and
   `POST /_localcloud/role-trusts` whether a service of this account may assume a role.
   https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-use-resource-based.html
   https://docs.aws.amazon.com/scheduler/latest/UserGuide/setting-up.html#setting-up-execution-role
7. `rate(...)` schedules are scaled like Step Functions' waits. `cron(...)` schedules are not, because they name
   times of day.
8. A state of an execution takes and gives 256 KiB at most, and States.ALL does not catch the error beyond that.
   https://docs.aws.amazon.com/step-functions/latest/dg/service-quotas.html
   https://docs.aws.amazon.com/step-functions/latest/dg/concepts-error-handling.html
9. An expression may take a minute, because AWS's limit of a second applies to its own, faster evaluation.
   https://docs.aws.amazon.com/step-functions/latest/dg/transforming-data.html
10. `$millis()` in a state machine counts a scaled wait in full, so that a deadline allows as many waits as on AWS.
    Everything else counts as long as it takes.
    https://docs.jsonata.org/date-time-functions#millis
11. A function finds the format of its LoggingConfig in its environment.
    https://docs.aws.amazon.com/lambda/latest/dg/configuration-envvars.html
12. Each execution environment of a function has credentials of its own, and ends when it is idle.
    `POST /_localcloud/kill/{environment}` kills one, as when it is out of memory.
    https://docs.aws.amazon.com/lambda/latest/dg/lambda-runtime-environment.html
13. Of histories, logs, metrics and events the newest are kept, where AWS forgets by age.
14. In a repository that is IMMUTABLE_WITH_EXCLUSION only the tags that a filter matches can move.
    https://docs.aws.amazon.com/AmazonECR/latest/userguide/image-tag-mutability.html
15. `PUT /_localcloud/not-ready` names functions and errors, such as ENINotReadyException: Lambda refuses the next call
    that a state machine makes of such a function with that error. The answer has those of the last request that are
    still to come.
    https://docs.aws.amazon.com/lambda/latest/api/API_Invoke.html#API_Invoke_Errors
16. An execution fails when its history would have more than 25,000 events, of which MiniStack keeps only some. Nothing
    catches that.
    https://docs.aws.amazon.com/step-functions/latest/dg/service-quotas.html
17. The name of an error has 256 characters at most, and its cause 32,768. AWS documents the lengths; that what is
    longer is cut is the worst that it may do, because a cause that is cut cannot be parsed.
    https://docs.aws.amazon.com/step-functions/latest/apireference/API_TaskFailedEventDetails.html
18. A template may have a rule of a security group as a resource of its own.
    https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/aws-resource-ec2-securitygroupegress.html
19. The role that Application Auto Scaling uses for ECS has its own name. The gateway answers the service's calls.
    https://docs.aws.amazon.com/autoscaling/application/userguide/application-auto-scaling-service-linked-roles.html
20. A template can have an Elastic IP address and a NAT gateway.
    https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/aws-resource-ec2-eip.html
    https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/aws-resource-ec2-natgateway.html
21. A change set contains the resources that only a condition adds or removes.
    https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/conditions-section-structure.html
22. The value of a parameter has 4 KB, or 8 KB in the advanced tier, and does not refer to another parameter. A call
    reads ten at most. The error for one that does not exist has no message.
    https://docs.aws.amazon.com/systems-manager/latest/APIReference/API_PutParameter.html
    https://docs.aws.amazon.com/systems-manager/latest/APIReference/API_GetParameters.html
23. A task definition keeps all members that it was registered with, and has none that it was not. Its tags are only
    in an answer that includes them, and its family alone stands for the latest ACTIVE revision.
    https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_DescribeTaskDefinition.html
24. GetMetricData answers the newest data first, from a whole minute on, and refuses ids that AWS refuses.
    https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_GetMetricData.html
    An alarm knows when its state changed. It is evaluated on the metric with exactly its dimensions, when that gets new
    data.
    https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/alarm-evaluation.html
25. A task that waits for a token: each attempt has a token of its own, its timeout may be an expression and is scaled
    like waits are, what was asked for is in the history, and a token counts once. `StopExecution` ends the waiting.
    https://docs.aws.amazon.com/step-functions/latest/dg/connect-to-resource.html#connect-wait-token
    https://docs.aws.amazon.com/step-functions/latest/apireference/API_SendTaskSuccess.html

The process serves on the socket that is its standard output: another process could take a free port before
this one binds to it. It ends when its standard input ends, so that it never outlives the local cloud.
"""

import asyncio
import base64
import contextlib
import contextvars
import fnmatch
import json
import operator
import os
import re
import shutil
import signal
import sys
import threading
import time

# Printed text goes to standard error.
SOCKET = os.dup(sys.stdout.fileno())
os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

import cbor2
from ministack import app as gateway
from ministack.core import iam_actions, iam_evaluator, lambda_runtime, router
from ministack.core.responses import error_response_json, get_account_id, get_region, json_response
from ministack.services import (
    alb, cloudwatch, cloudwatch_logs, ec2, ecr, ecs, eventbridge, iam, kms, lambda_svc, scheduler, sns, ssm,
    stepfunctions, sts, tagging)
from ministack.services.cloudformation import changesets, provisioners

AUTHORISE_ONLY = "x-localcloud-authorise-only"
RESOURCE_TAGS = "x-localcloud-resource-tags"
CALLER = "x-localcloud-caller"
# https://smithy.io/2.0/additional-specs/protocols/smithy-rpc-v2.html
RPC_V2_CBOR = "rpc-v2-cbor"


class Request:
    """The parts of the dispatched request that the corrections need."""

    def __init__(self, path, headers, body, query_params):
        self.headers = headers
        self.authorise_only = AUTHORISE_ONLY in headers
        # Tags of resources that only the gateway knows, by ARN.
        self.resource_tags = json.loads(headers.get(RESOURCE_TAGS) or "{}")
        self.checks = []
        self.denied = None
        target = headers.get("x-amz-target", "")
        # The members of a request in JSON or CBOR.
        self.json = {}
        self.operation = target.rpartition(".")[2]
        if self.operation:
            with contextlib.suppress(ValueError):
                self.json = json.loads(body or b"{}")
        elif headers.get("smithy-protocol") == RPC_V2_CBOR:
            self.operation = path.rpartition("/operation/")[2]
            with contextlib.suppress(ValueError):
                self.json = cbor2.loads(body) if body else {}
        self.params = gateway._routing_params("POST", "/", headers, body, query_params)
        if not self.operation:
            self.operation = self.param("Action")

    def param(self, name):
        return iam_actions._query_param(self.params, name)

    def members(self, prefix, suffix=""):
        found, number = [], 1
        while value := self.param(f"{prefix}.member.{number}{suffix}"):
            found.append(value)
            number += 1
        return found


request = contextvars.ContextVar("request", default=None)


# --- 1. Authorisation ---------------------------------------------------------------------------
# A check is (action, resource ARN, condition keys). The first one is the call's own action.

def ecs_checks(r):
    """https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazonelasticcontainerservice.html"""
    prefix = f"arn:aws:ecs:{get_region()}:{get_account_id()}"
    cluster = str(r.json.get("cluster") or "default").rpartition("/")[2]
    keys = {"ecs:cluster": f"{prefix}:cluster/{cluster}"}

    def named(kind, value):
        value = str(value or "*")
        return value if value.startswith("arn:") else f"{prefix}:{kind}/{cluster}/{value}"

    action, op = f"ecs:{r.operation}", r.operation
    family = str(r.json.get("family") or "*")
    request_tags = {f"aws:RequestTag/{tag.get('key')}": tag.get("value") for tag in r.json.get("tags") or []}
    if op == "CreateService":
        resources = [named("service", r.json.get("serviceName"))]
    elif op in ("UpdateService", "DeleteService"):
        resources = [named("service", r.json.get("service"))]
    elif op == "DescribeServices":
        resources = [named("service", name) for name in r.json.get("services") or []]
    elif op == "StopTask":
        resources = [named("task", r.json.get("task"))]
    elif op in ("DescribeTasks", "GetTaskProtection", "UpdateTaskProtection"):
        resources = [named("task", name) for name in r.json.get("tasks") or []]
    elif op == "RegisterTaskDefinition":
        # Reports say that AWS checks it on no resource, although the reference lists the family.
        resources, keys = ["*"], request_tags
    elif op == "RunTask":
        # Checked on the revision that it names, or on the latest ACTIVE one of the family.
        resources = [f"{prefix}:task-definition/{ecs._resolve_td_key(str(r.json.get('taskDefinition') or '*'))}"]
        keys = {**keys, **request_tags}
    elif op == "DeleteTaskDefinitions":
        resources, keys = [
            name if name.startswith("arn:") else f"{prefix}:task-definition/{name}"
            for name in r.json.get("taskDefinitions") or []], {}
    elif op in ("DescribeTaskDefinition", "DeregisterTaskDefinition", "ListTaskDefinitions",
                "ListTaskDefinitionFamilies", "CreateCluster", "ListClusters"):
        resources, keys = ["*"], {}
    elif op in ("ListServices", "ListTasks"):
        resources = ["*"]
    elif op in ("TagResource", "UntagResource", "ListTagsForResource"):
        resources = [str(r.json.get("resourceArn") or "*")]
    elif op == "DescribeClusters":
        resources = [name if name.startswith("arn:") else f"{prefix}:cluster/{name}"
                     for name in r.json.get("clusters") or ["default"]]
    else:
        return []
    checks = [(action, resource, keys) for resource in resources or ["*"]]
    if r.json.get("tags") and op in ("CreateService", "RegisterTaskDefinition", "CreateCluster", "RunTask"):
        # https://docs.aws.amazon.com/AmazonECS/latest/developerguide/supported-iam-actions-tagging.html
        tagged = {"RegisterTaskDefinition": [f"{prefix}:task-definition/{family}:*"],
                  "RunTask": [f"{prefix}:task/{cluster}/*"]}.get(op, resources)
        checks += [("ecs:TagResource", resource, {**keys, "ecs:CreateAction": op}) for resource in tagged]
    # A call that names a task definition passes its roles. A call that forces fresh tasks of the same one does
    # so too, which is not checked here. A change of numbers passes none.
    # https://docs.aws.amazon.com/IAM/latest/UserGuide/id_roles_use_passrole.html
    definition = r.json if op == "RegisterTaskDefinition" else {}
    if op in ("CreateService", "UpdateService", "RunTask") and r.json.get("taskDefinition"):
        definition = ecs._task_defs.get(ecs._resolve_td_key(str(r.json["taskDefinition"]))) or {}
    checks += [("iam:PassRole", role_arn(role), {"iam:PassedToService": "ecs-tasks.amazonaws.com"})
               for role in (definition.get("taskRoleArn"), definition.get("executionRoleArn")) if role]
    return checks


def role_arn(role):
    return role if role.startswith("arn:") else f"arn:aws:iam::{get_account_id()}:role/{role}"


def elasticloadbalancing_checks(r):
    """https://docs.aws.amazon.com/service-authorization/latest/reference/list_awselasticloadbalancingv2.html"""
    prefix = f"arn:aws:elasticloadbalancing:{get_region()}:{get_account_id()}"
    action, op = f"elasticloadbalancing:{r.operation}", r.operation
    created = None
    if op.startswith("Describe"):
        resources = ["*"]
    elif op == "CreateTargetGroup":
        resources = [f"{prefix}:targetgroup/{r.param('Name') or '*'}/*"]
        created = resources
    elif op == "CreateRule":
        resources = [r.param("ListenerArn")]
        created = [r.param("ListenerArn").replace(":listener/", ":listener-rule/") + "/*"]
    elif op in ("DeleteRule", "ModifyRule"):
        resources = [r.param("RuleArn")]
    elif op == "SetRulePriorities":
        resources = r.members("RulePriorities", ".RuleArn")
    elif op in ("ModifyListener", "DeleteListener", "ModifyListenerAttributes"):
        resources = [r.param("ListenerArn")]
    elif op in ("ModifyTargetGroup", "ModifyTargetGroupAttributes", "DeleteTargetGroup",
                "RegisterTargets", "DeregisterTargets"):
        resources = [r.param("TargetGroupArn")]
    elif op in ("AddTags", "RemoveTags"):
        resources = r.members("ResourceArns")
    else:
        return []
    checks = [(action, resource, {}) for resource in resources if resource] or [(action, "*", {})]
    if created and r.param("Tags.member.1.Key"):
        # https://docs.aws.amazon.com/elasticloadbalancing/latest/userguide/tagging-resources-during-creation.html
        checks += [("elasticloadbalancing:AddTags", resource,
                    {"elasticloadbalancing:CreateAction": op}) for resource in created]
    if op == "CreateTargetGroup" and r.param("VpcId"):
        # https://docs.aws.amazon.com/elasticloadbalancing/latest/userguide/elb-api-permissions.html
        checks += [(f"ec2:{look}", "*", {}) for look in ("DescribeInternetGateways", "DescribeVpcs")]
    return checks


def logs_checks(r):
    """https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazoncloudwatchlogs.html

    Calls that read or write streams are checked on the group's streams, so a policy has to end in `:*`.
    """
    group = r.json.get("logGroupName") or str(r.json.get("logGroupIdentifier") or "").rpartition("log-group:")[2]
    stream = r.json.get("logStreamName") or ""
    if r.operation not in ("CreateLogStream", "PutLogEvents", "GetLogEvents", "DescribeLogStreams",
                           "FilterLogEvents") or not group:
        return []
    arn = f"arn:aws:logs:{get_region()}:{get_account_id()}:log-group:{group}:log-stream:{stream}"
    return [(f"logs:{r.operation}", arn, {})]


SCALING, SCALING_OF_ECS = "application-autoscaling", "ecs.application-autoscaling.amazonaws.com"
SCALING_ROLE = "AWSServiceRoleForApplicationAutoScaling_ECSService"


def application_autoscaling_checks(r):
    """https://docs.aws.amazon.com/service-authorization/latest/reference/list_awsapplicationautoscaling.html

    The caller also needs permissions on the service and on the alarms of policies, and at first for the role:
    https://docs.aws.amazon.com/autoscaling/application/userguide/security_iam_id-based-policy-examples.html
    """
    action, op = f"{SCALING}:{r.operation}", r.operation
    if op.startswith("Describe"):
        return [(action, "*", {})]
    if op not in ("RegisterScalableTarget", "DeregisterScalableTarget", "PutScalingPolicy", "DeleteScalingPolicy"):
        return []
    resource, place = str(r.json.get("ResourceId") or ""), f"{get_region()}:{get_account_id()}"
    keys = {f"{SCALING}:service-namespace": str(r.json.get("ServiceNamespace") or ""),
            f"{SCALING}:scalable-dimension": str(r.json.get("ScalableDimension") or "")}
    # The id of a target that does not exist yet is not known.
    target = next((arn for arn in r.resource_tags if f":{SCALING}:" in arn), "*")
    checks = [(action, target, keys)]
    if op == "RegisterScalableTarget":
        if r.json.get("Tags"):
            checks.append((f"{SCALING}:TagResource", target, {}))
        cluster = {"ecs:cluster": f"arn:aws:ecs:{place}:cluster/{(resource + '//').split('/')[1]}"}
        checks += [(f"ecs:{call}", f"arn:aws:ecs:{place}:{resource}", cluster)
                   for call in ("DescribeServices", "UpdateService")]
        if SCALING_ROLE not in iam._roles:
            role = role_arn(f"aws-service-role/{SCALING_OF_ECS}/{SCALING_ROLE}")
            checks.append(("iam:CreateServiceLinkedRole", role, {"iam:AWSServiceName": SCALING_OF_ECS}))
        return checks
    checks.append(("cloudwatch:DescribeAlarms", "*", {}))
    change = "PutMetricAlarm" if op == "PutScalingPolicy" else "DeleteAlarms"
    return checks + [(f"cloudwatch:{change}", f"arn:aws:cloudwatch:{place}:alarm:TargetTracking-{resource}-{kind}-*", {})
                     for kind in ("AlarmHigh", "AlarmLow")]


def ssm_checks(r):
    """https://docs.aws.amazon.com/service-authorization/latest/reference/list_awssystemsmanager.html

    Each parameter that a call names is checked, without the version or label that the name may end with.
    """
    if r.operation == "GetParameter":
        names = [r.json.get("Name")]
    elif r.operation in ("GetParameters", "DeleteParameters"):
        names = r.json.get("Names") or []
    else:
        return []
    names = [ssm._split_selector(str(name))[0] for name in names if name]
    return [(f"ssm:{r.operation}", name if name.startswith("arn:") else ssm._param_arn(name), {}) for name in names]


def cloudwatch_checks(r):
    """https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazoncloudwatch.html

    What changes alarms is checked on each of them. The rest, such as reading metrics and alarms, is checked on no
    resource, because a call may read alarms of any name.
    """
    if r.operation in ("PutMetricAlarm", "PutCompositeAlarm", "SetAlarmState"):
        names = [r.json.get("AlarmName") or r.param("AlarmName")]
    elif r.operation in ("DeleteAlarms", "EnableAlarmActions", "DisableAlarmActions"):
        names = r.json.get("AlarmNames") or r.members("AlarmNames")
    else:
        names = []
    prefix = f"arn:aws:cloudwatch:{get_region()}:{get_account_id()}:alarm"
    resources = [f"{prefix}:{name}" for name in names if name] or ["*"]
    return [(f"cloudwatch:{r.operation}", resource, {}) for resource in resources]


CHECKS = {"ecs": ecs_checks, "elasticloadbalancing": elasticloadbalancing_checks, "logs": logs_checks,
          "ssm": ssm_checks, "monitoring": cloudwatch_checks, SCALING: application_autoscaling_checks}
iam_actions.SERVICE_TO_IAM_NAMESPACE[SCALING] = SCALING
# MiniStack looks up a service that it does not have in botocore's catalogue of all services, which takes it seconds.
router.SERVICE_PATTERNS[SCALING] = {"target_prefixes": ["AnyScaleFrontendService."], "credential_scope": SCALING}

extract_iam_action, extract_resource_arn = iam_actions.extract_iam_action, iam_actions.extract_resource_arn
enforce = iam_evaluator.enforce
access_denied_response = iam_actions.access_denied_response


def corrected_action(service, method, path, headers, *arguments):
    r = request.get()
    if r and headers.get("smithy-protocol") == RPC_V2_CBOR:
        # MiniStack finds no action in the path, and checks no permission then.
        return f"{iam_actions.SERVICE_TO_IAM_NAMESPACE[service]}:{r.operation}"
    return extract_iam_action(service, method, path, headers, *arguments)


def corrected_resource_arn(service, *arguments, **named):
    r = request.get()
    checks = CHECKS[service](r) if r and service in CHECKS else []
    if not checks:
        return extract_resource_arn(service, *arguments, **named)
    r.checks = checks
    return checks[0][1]


def enforce_all(access_key, action, service, region, resource_arn="*", service_context=None):
    """Every check of the call has to pass; the answer names the first that does not."""
    r = request.get()
    if r is None or not r.checks or action != r.checks[0][0]:
        return enforce(access_key, action, service, region, resource_arn=resource_arn,
                       service_context=service_context)
    for check_action, arn, keys in r.checks:
        denied = enforce(access_key, check_action, service, region, resource_arn=arn,
                         service_context={**(service_context or {}), **keys})
        if denied:
            r.denied = (check_action, arn)
            return denied
    return None


def access_denied_naming_the_check(service, action, principal_arn, *arguments, **named):
    r = request.get()
    if r and r.denied:
        action, named["resource_arn"] = r.denied
    status, headers, body = access_denied_response(service, action, principal_arn, *arguments, **named)
    if service == "monitoring":
        # CloudWatch keeps the codes that it had under its Query protocol:
        # https://smithy.io/2.0/aws/protocols/aws-query-protocol.html#aws-protocols-awsquerycompatible-trait
        code = named.get("error_code") or "AccessDenied"
        headers = {**headers, "x-amzn-query-error": f"{code};Sender"}
    return status, headers, body


iam_actions.extract_iam_action = corrected_action
iam_actions.extract_resource_arn = corrected_resource_arn
iam_actions.access_denied_response = access_denied_naming_the_check
iam_evaluator.enforce = enforce_all

# aws:ResourceTag conditions, for the services that MiniStack does not look up itself.
resource_tags = tagging.resource_tags


def corrected_resource_tags(arn):
    r = request.get()
    if r and arn in r.resource_tags:
        return r.resource_tags[arn]
    for tags in (alb._tags, ecs._tags):
        if arn in tags:
            return {t.get("Key", t.get("key")): t.get("Value", t.get("value")) for t in tags[arn]}
    if ":ecr:" in arn:
        repository = ecr._repositories.get(arn.partition(":repository/")[2], {})
        return {t["Key"]: t["Value"] for t in repository.get("tags", [])}
    return resource_tags(arn)


tagging.resource_tags = corrected_resource_tags


def role_allows(role, action, arn, **keys):
    """Whether the policies of a role (its ARN) allow an action on a resource, with these condition keys."""
    name, account = role.rpartition("/")[2], get_account_id()
    context = iam_evaluator.EvalContext(
        principal_arn=f"arn:aws:sts::{account}:assumed-role/{name}/localcloud", principal_type="AssumedRole",
        principal_account=account, action=action, resource_arn=arn, region=get_region(), service_context=keys)
    policies = iam_evaluator._gather_role_policies(name, account)
    return iam_evaluator.evaluate(context, policies).decision == "Allow"


def refusal(role, action, arn):
    """AWS's message about an action that a role does not allow."""
    name = role.rpartition("/")[2]
    return (f"User: arn:aws:sts::{get_account_id()}:assumed-role/{name}/localcloud is not authorized to perform: {action} "
            f"on resource: {arn} because no identity-based policy allows the {action} action")


# A state machine invokes functions and publishes events and messages as its role, which MiniStack does not check.
# https://docs.aws.amazon.com/step-functions/latest/dg/connect-lambda.html
# https://docs.aws.amazon.com/step-functions/latest/dg/connect-eventbridge.html
# https://docs.aws.amazon.com/step-functions/latest/dg/connect-sns.html
state_machine_role = contextvars.ContextVar("state_machine_role", default="")
execute_task, call_lambda = stepfunctions._execute_task, stepfunctions._call_lambda
# The errors of functions that are not ready (15), by function.
not_ready = {}


def execute_task_as_role(state_def, raw_input, execution, ctx):
    machine = stepfunctions._state_machines.get((execution or {}).get("stateMachineArn", ""), {})
    state_machine_role.set(machine.get("roleArn", ""))
    return execute_task(state_def, raw_input, execution, ctx)


def call_lambda_as_role(func_ref, event):
    role = state_machine_role.get()
    _, config, _ = lambda_svc._get_func_record_for_ref(func_ref)
    # A name alone stands for a function of this account.
    place = f"arn:aws:lambda:{get_region()}:{get_account_id()}:function"
    arn = func_ref if func_ref.startswith("arn:") else f"{place}:{func_ref}"
    if role and not role_allows(role, "lambda:InvokeFunction", arn):
        raise stepfunctions._ExecutionError(
            "Lambda.AWSLambdaException",
            f"{refusal(role, 'lambda:InvokeFunction', arn)} (Service: Lambda, Status Code: 403)")
    if not config:
        raise stepfunctions._ExecutionError(
            "Lambda.ResourceNotFoundException", f"Function not found: {arn} (Service: Lambda, Status Code: 404)")
    if (error := not_ready.pop(config["FunctionName"], None)):
        raise stepfunctions._ExecutionError(f"Lambda.{error}", "The function is not ready. (Service: Lambda)")
    return call_lambda(func_ref, event)


PUT_EVENTS = "arn:aws:states:::events:putEvents"
put_events = stepfunctions._SERVICE_DISPATCH[PUT_EVENTS]


def put_events_as_role(resource, input_data):
    role = state_machine_role.get()
    for entry in input_data.get("Entries") or []:
        bus = str(entry.get("EventBusName") or "default").rpartition("/")[2]
        arn = f"arn:aws:events:{get_region()}:{get_account_id()}:event-bus/{bus}"
        if role and not role_allows(role, "events:PutEvents", arn):
            raise stepfunctions._ExecutionError(
                "EventBridge.AmazonEventBridgeException",
                f"{refusal(role, 'events:PutEvents', arn)} (Service: EventBridge, Status Code: 400)")
    return put_events(resource, input_data)


PUBLISH = "arn:aws:states:::sns:publish"
publish = stepfunctions._SERVICE_DISPATCH[PUBLISH]


def publish_as_role(resource, input_data):
    role = state_machine_role.get()
    topic = str(input_data.get("TopicArn") or input_data.get("TargetArn") or "*")
    attributes = (sns._topics.get(topic) or {}).get("attributes") or {}
    checks = [("SNS.AuthorizationErrorException", "sns:Publish", topic)]
    # The keys of AWS let everybody in who may publish.
    # https://docs.aws.amazon.com/sns/latest/dg/sns-key-management.html
    if (key := attributes.get("KmsMasterKeyId")) and "alias/aws/" not in key:
        key = (kms._resolve_key(key) or {}).get("Arn") or key
        checks += [("SNS.KMSAccessDeniedException", f"kms:{call}", key) for call in ("GenerateDataKey", "Decrypt")]
    for error, action, arn in checks:
        if role and not role_allows(role, action, arn, **{"kms:viaservice": f"sns.{get_region()}.amazonaws.com"}):
            raise stepfunctions._ExecutionError(error, f"{refusal(role, action, arn)} (Service: Sns, Status Code: 403)")
    try:
        return publish(resource, input_data)
    except stepfunctions._ExecutionError as failed:
        code = re.search("<Code>(.*)</Code>", failed.cause)
        raise stepfunctions._ExecutionError(f"SNS.{code[1]}Exception", failed.cause) if code else failed


def keeping_its_key(change):
    """A topic of a template with the key that it is encrypted with, which MiniStack forgets."""
    def changed(*arguments, **named):
        answer = change(*arguments, **named)
        properties = [it for it in arguments if isinstance(it, dict)][-1]
        if (topic := sns._topics.get(answer[0])) and (key := properties.get("KmsMasterKeyId")):
            topic.setdefault("attributes", {})["KmsMasterKeyId"] = key
        return answer
    return changed


topics = provisioners._RESOURCE_HANDLERS["AWS::SNS::Topic"]
topics.update({step: keeping_its_key(topics[step]) for step in ("create", "update")})
stepfunctions._execute_task = execute_task_as_role
stepfunctions._call_lambda = call_lambda_as_role
stepfunctions._SERVICE_DISPATCH[PUT_EVENTS] = put_events_as_role
stepfunctions._SERVICE_DISPATCH[PUBLISH] = publish_as_role


# --- 2. Authorise only --------------------------------------------------------------------------

class Handlers(dict):
    """The services' handlers; for a request that is only to be authorised, one that does nothing."""

    def get(self, name, default=None):
        r = request.get()
        if r and r.authorise_only:
            return allowed
        return super().get(name, default)


async def allowed(*_):
    return 204, {}, b""


gateway.SERVICE_HANDLERS = Handlers(gateway.SERVICE_HANDLERS)
dispatch_service_request = gateway._dispatch_service_request


async def dispatch(method, path, headers, body, query_params, request_id):
    request.set(Request(path, headers, body, query_params))
    status, answer_headers, answer = await dispatch_service_request(
        method, path, headers, body, query_params, request_id)
    # Who called, for the gateway's record of calls.
    answer_headers[CALLER] = iam_evaluator.caller_arn() or ""
    return status, answer_headers, answer


gateway._dispatch_service_request = dispatch


# --- 3. Forward actions -------------------------------------------------------------------------

parse_actions, action_xml = alb._parse_actions, alb._action_xml
describe_target_groups = alb._describe_tgs
template_actions = provisioners._elbv2_listener_actions


def with_forward_config(action, groups, stickiness):
    """An action as AWS keeps it: one group stands in TargetGroupArn and in ForwardConfig."""
    if action["Type"] != "forward":
        return action
    if not groups and action.get("TargetGroupArn"):
        groups = [(action["TargetGroupArn"], 1)]
    action.pop("TargetGroupArn", None)
    if len(groups) == 1:
        action["TargetGroupArn"] = groups[0][0]
    action["ForwardConfig"] = {
        "TargetGroups": [{"TargetGroupArn": arn, "Weight": int(weight)} for arn, weight in groups],
        "TargetGroupStickinessConfig": stickiness,
    }
    return action


def parse_actions_with_forward_config(params, prefix="DefaultActions"):
    actions = parse_actions(params, prefix)
    for number, action in enumerate(actions, start=1):
        base = f"{prefix}.member.{number}.ForwardConfig"
        groups, entry = [], 1
        while arn := alb._p(params, f"{base}.TargetGroups.member.{entry}.TargetGroupArn"):
            groups.append((arn, alb._p(params, f"{base}.TargetGroups.member.{entry}.Weight") or 1))
            entry += 1
        enabled = alb._p(params, f"{base}.TargetGroupStickinessConfig.Enabled") == "true"
        seconds = alb._p(params, f"{base}.TargetGroupStickinessConfig.DurationSeconds")
        stickiness = {"Enabled": enabled, **({"DurationSeconds": int(seconds)} if seconds else {})}
        with_forward_config(action, groups, stickiness)
    return actions


def template_actions_with_forward_config(props, lb_arn, prop="DefaultActions"):
    actions = template_actions(props, lb_arn, prop)
    for action, given in zip(actions, props.get(prop) or []):
        config = given.get("ForwardConfig") or {}
        groups = [(group["TargetGroupArn"], group.get("Weight", 1)) for group in config.get("TargetGroups", [])]
        sticky = config.get("TargetGroupStickinessConfig") or {}
        stickiness = {"Enabled": str(sticky.get("Enabled", False)).lower() == "true"}
        with_forward_config(action, groups, stickiness)
    return actions


def action_xml_with_forward_config(action):
    xml = action_xml(action)
    config = action.get("ForwardConfig")
    if not config:
        return xml
    groups = "".join(
        f"<member><TargetGroupArn>{group['TargetGroupArn']}</TargetGroupArn>"
        f"<Weight>{group['Weight']}</Weight></member>" for group in config["TargetGroups"])
    sticky = config["TargetGroupStickinessConfig"]
    seconds = (f"<DurationSeconds>{sticky['DurationSeconds']}</DurationSeconds>"
               if "DurationSeconds" in sticky else "")
    return (f"{xml.removesuffix('</member>')}<ForwardConfig><TargetGroups>{groups}</TargetGroups>"
            f"<TargetGroupStickinessConfig><Enabled>{str(sticky['Enabled']).lower()}</Enabled>{seconds}"
            f"</TargetGroupStickinessConfig></ForwardConfig></member>")


def describe_target_groups_with_load_balancers(params):
    """LoadBalancerArns are those whose listeners and rules name the group now."""
    used = {}
    for rule in alb._rules.values():
        listener = alb._listeners.get(rule["ListenerArn"])
        for action in rule["Actions"] if listener else []:
            for group in action.get("ForwardConfig", {}).get("TargetGroups", []):
                used.setdefault(group["TargetGroupArn"], set()).add(listener["LoadBalancerArn"])
    for arn, group in alb._tgs.items():
        group["LoadBalancerArns"] = sorted(used.get(arn, ()))
    return describe_target_groups(params)


alb._parse_actions = parse_actions_with_forward_config
alb._action_xml = action_xml_with_forward_config
alb._ACTION_MAP["DescribeTargetGroups"] = describe_target_groups_with_load_balancers
provisioners._elbv2_listener_actions = template_actions_with_forward_config


# --- 4. Output of Succeed states ----------------------------------------------------------------

apply_output_path = stepfunctions._apply_output_path


def output_of_succeed(state_def, data, ctx=None):
    if state_def.get("Type") == "Succeed" and stepfunctions._state_query_language(state_def, ctx) == "JSONata":
        return stepfunctions._apply_jsonata_output(state_def, data, ctx, default=data)
    return apply_output_path(state_def, data, ctx)


stepfunctions._apply_output_path = output_of_succeed


# --- 5. The state of ELBv2 in one answer --------------------------------------------------------

def load_balancing():
    return {
        "loadBalancers": list(alb._lbs.values()),
        "listeners": list(alb._listeners.values()),
        "rules": list(alb._rules.values()),
        "targetGroups": [
            {**group, "Attributes": {a["Key"]: str(a["Value"]) for a in alb._tg_attrs.get(arn, [])},
             "Tags": {tag["Key"]: tag["Value"] for tag in alb._tags.get(arn, [])}}
            for arn, group in alb._tgs.items()],
    }


async def exchange_not_ready(receive):
    before = dict(not_ready)
    not_ready.clear()
    not_ready.update(json.loads(await body_of(receive)))
    return before


async def body_of(receive):
    body, more = b"", True
    while more:
        event = await receive()
        body, more = body + event.get("body", b""), event.get("more_body", False)
    return body


async def application(scope, receive, send):
    path = scope["path"] if scope["type"] == "http" else ""
    if path == "/_localcloud/load-balancing":
        answer = load_balancing()
    elif path == "/_localcloud/not-ready":
        answer = await exchange_not_ready(receive)
    elif path == "/_localcloud/service-allowed":
        answer = service_allowed(**json.loads(await body_of(receive)))
    elif path == "/_localcloud/role-trusts":
        answer = role_trusts(**json.loads(await body_of(receive)))
    elif path.startswith("/_localcloud/kill/"):
        kill_environment(int(path.rpartition("/")[2]))
        answer = None
    else:
        return await gateway.app(scope, receive, send)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": json.dumps(answer).encode()})


# --- 6. Targets of EventBridge and its scheduler ------------------------------------------------

TARGET_ACTIONS = {"states": "states:StartExecution", "lambda": "lambda:InvokeFunction",
                  "sns": "sns:Publish", "sqs": "sqs:SendMessage"}

invoke_target = eventbridge._invoke_target


def service_allowed(service, action, arn, source):
    """Whether the resource's own policy allows an AWS service, on behalf of a rule."""
    policy = iam_evaluator._resource_policy(arn.split(":")[2], arn)
    context = {"aws:sourcearn": source, "aws:sourceaccount": get_account_id()}
    # "You can't use Condition blocks in Amazon SNS topic policies for EventBridge": it sends nothing for them.
    # https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-use-resource-based.html#eb-sns-permissions
    if action == "sns:Publish":
        context = {}
    caller = iam_evaluator.EvalContext(
        principal_arn="*", principal_type="Service", principal_account="", action=action, resource_arn=arn,
        region=get_region(), service_context=context)
    document = policy[0] if policy else None
    return iam_evaluator.evaluate_resource_policy(document, caller, service=service).decision == "Allow"


def role_trusts(role, service):
    """Whether a role's trust policy allows an AWS service of this account to assume it.

    ECS says as well on behalf of what: https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task-iam-roles.html
    """
    record = iam._roles.get(role.rpartition("/")[2])
    if record is None:
        return False
    document = record["AssumeRolePolicyDocument"]
    # A trust policy has no resource, because it belongs to the role.
    document = json.loads(document) if isinstance(document, str) else document
    statements = document["Statement"] if isinstance(document["Statement"], list) else [document["Statement"]]
    policy = {"Statement": [{**statement, "Resource": "*"} for statement in statements]}
    context = {"aws:sourceaccount": get_account_id()}
    if service == "ecs-tasks.amazonaws.com":
        context["aws:sourcearn"] = f"arn:aws:ecs:{get_region()}:{get_account_id()}:task/any"
    caller = iam_evaluator.EvalContext(
        principal_arn="*", principal_type="Service", principal_account="", action="sts:AssumeRole",
        resource_arn=role, region=get_region(), service_context=context)
    return iam_evaluator.evaluate_resource_policy(policy, caller, service=service).decision == "Allow"


def target_refusal(target, source, arn, action):
    """Why a rule or schedule (its ARN) may not do something to a resource; None when it may."""
    service = f"{source.split(':')[2]}.amazonaws.com"
    role = target.get("RoleArn")
    # Only these have policies of their own; a schedule always has a role.
    if not role and action.split(":")[0] in ("lambda", "sns", "sqs"):
        allowed = service_allowed(service, action, arn, source)
        return None if allowed else f"{arn} has no permission that lets {source} do {action}"
    if not role:
        return f"a target of {source} needs a role for {action}"
    if not role_trusts(role, service):
        return f"{service} cannot take the role {role}"
    return None if role_allows(role, action, arn) else refusal(role, action, arn)


def invoke_target_as_allowed(target, event, rule, view=None):
    arn, source = target.get("Arn", ""), rule.get("Arn", "")
    action = TARGET_ACTIONS.get((arn.split(":") + [""] * 3)[2])
    why = action and source and target_refusal(target, source, arn, action)
    if not why:
        return invoke_target(target, event, rule, view)
    eventbridge.logger.warning("%s was not delivered: %s", source, why)
    queue = (target.get("DeadLetterConfig") or {}).get("Arn")
    # A schedule sends there as its role, a rule as itself.
    # https://docs.aws.amazon.com/scheduler/latest/UserGuide/configuring-schedule-dlq.html
    # https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-rule-dlq.html
    sender = target if ":scheduler:" in source else {}
    if queue and not target_refusal(sender, source, queue, "sqs:SendMessage"):
        return invoke_target({"Arn": queue}, event, rule, view)
    return None


eventbridge._invoke_target = invoke_target_as_allowed


# --- 7. The scale of schedules ------------------------------------------------------------------

TIME_SCALE = stepfunctions._SFN_WAIT_SCALE
parse_rate_seconds = eventbridge._parse_rate_seconds


def parse_scaled_rate_seconds(expression):
    seconds = parse_rate_seconds(expression)
    return seconds if seconds is None else seconds * TIME_SCALE


eventbridge._parse_rate_seconds = parse_scaled_rate_seconds
# The time between two checks of what is due.
scheduler._SCHEDULE_TICK_INTERVAL = max(0.2, scheduler._SCHEDULE_TICK_INTERVAL * TIME_SCALE)


# --- 8. The data of a state ---------------------------------------------------------------------

MAX_DATA = 262_144
UNCAUGHT = ("States.DataLimitExceeded", "States.Runtime")

add_event, error_matches = stepfunctions._add_event, stepfunctions._error_matches


def check_data(data):
    # Counted as UTF-8, and MiniStack escapes what is not ASCII.
    if len(data) > MAX_DATA and len(json.dumps(json.loads(data), ensure_ascii=False).encode()) > MAX_DATA:
        raise stepfunctions._ExecutionError(
            "States.DataLimitExceeded",
            "The state/task returned a result with a size exceeding the maximum number of bytes service limit.")


def add_event_within_the_data_limit(execution, event_type, details=None):
    for detail in (details or {}).values():
        for field in ("input", "output"):
            check_data(str(detail.get(field) or ""))
    return add_event(execution, event_type, details)


def error_matches_but_what_nothing_catches(error_equals, error):
    if error in UNCAUGHT:
        return error in error_equals
    return error_matches(error_equals, error)


stepfunctions._add_event = add_event_within_the_data_limit
stepfunctions._error_matches = error_matches_but_what_nothing_catches


# --- 9. The time of an expression ----------------------------------------------------------------

parse_expression = stepfunctions.jsonata.Jsonata.jsonata


def parse_expression_without_hurry(expression, timeout=None, **named):
    return parse_expression(expression, timeout=60_000, **named)


stepfunctions.jsonata.Jsonata.jsonata = parse_expression_without_hurry


# --- 10. The time of a state machine -------------------------------------------------------------

# Seconds that the waits of this execution, or of this item of a Map, have left out.
left_out = contextvars.ContextVar("left_out", default=0)
scaled_sleep, register_functions = stepfunctions._scaled_sleep, stepfunctions._register_sfn_jsonata_functions


def scaled_sleep_that_counts(seconds):
    scaled_sleep(seconds)
    left_out.set(left_out.get() + seconds * (1 - TIME_SCALE))


def register_functions_with_millis(expression):
    register_functions(expression)
    expression.register_lambda("millis", lambda: int(1000 * (time.time() + left_out.get())))


stepfunctions._scaled_sleep = scaled_sleep_that_counts
stepfunctions._register_sfn_jsonata_functions = register_functions_with_millis


# --- 11. The log format of a function -------------------------------------------------------------

def log_format(config):
    return {"AWS_LAMBDA_LOG_FORMAT": (config.get("LoggingConfig") or {}).get("LogFormat") or "Text"}


# --- 12. The execution environments of functions --------------------------------------------------

# AWS gives no time; it is observed to be five to fifteen minutes.
IDLE_SECONDS = max(5, 600 * TIME_SCALE)

release_worker, shutdown_server = lambda_svc.release_worker, lambda_runtime.ProvidedWorker._shutdown_server
# The sessions of the environments that run, by the ports on which the functions find their Runtime API.
sessions = {}


def worker_environment(config, code_dir, port, without=lambda_svc._provided_worker_env):
    """The token of the credentials tells the gateway which environment of which function calls."""
    environment = {**without(config, code_dir, port), **log_format(config)}
    secret = os.urandom(16).hex()
    token = f"localcloud/{config['FunctionName']}/{port}/{secret}"
    session = {**sts._sessions[environment["AWS_ACCESS_KEY_ID"]], "SessionToken": token}
    sessions[port] = session
    sts.register_session(f"ASIA{secret[:16].upper()}", session)
    return {**environment, "AWS_ACCESS_KEY_ID": f"ASIA{secret[:16].upper()}", "AWS_SESSION_TOKEN": token}


def shutdown_server_of_environment(worker):
    if worker._server:
        # Calls on their way may still be answered.
        sessions.pop(worker._server.server_address[1], {})["Expiration"] = time.time() + 60
    shutdown_server(worker)


def release_worker_now(worker):
    if worker:
        worker.last_used = time.time()
    release_worker(worker)


def kill_environment(port):
    with lambda_runtime._lock:
        workers = [worker for pool in lambda_runtime._workers.values() for worker in pool]
    for worker in workers:
        server, process = worker._server, worker._proc
        if server and process and server.server_address[1] == port:
            process.kill()


def end_idle_environments():
    while True:
        time.sleep(IDLE_SECONDS / 10)
        idle = []
        with lambda_runtime._lock:
            for key, pool in list(lambda_runtime._workers.items()):
                idle += [worker for worker in pool
                         if not worker.in_use and time.time() - worker.last_used > IDLE_SECONDS]
                lambda_runtime._workers[key] = [worker for worker in pool if worker not in idle]
        lambda_runtime.kill_workers(idle)


lambda_svc._provided_worker_env = worker_environment
lambda_svc.release_worker = release_worker_now
lambda_runtime.ProvidedWorker._shutdown_server = shutdown_server_of_environment


# --- 13. What is kept -----------------------------------------------------------------------------

# The histories of executions that have ended, the streams of a log group and the events of a stream, the points of
# a metric, the events of the bus.
HISTORIES, STREAMS, LINES, POINTS, EVENTS = 200, 200, 2000, 500, 500


def forget_the_oldest():
    ended = [execution for execution in stepfunctions._executions.all_values()
             if execution["status"] != "RUNNING" and execution["events"]]
    ended.sort(key=lambda execution: str(execution.get("stopDate")))
    for execution in ended[:-HISTORIES]:
        # The execution can still be described, and its name stays taken.
        execution["events"] = []
    for group in cloudwatch_logs._log_groups.all_values():
        streams = group["streams"]
        by_age = sorted(list(streams), key=lambda name: streams[name]["lastEventTimestamp"] or time.time() * 1000)
        for name in by_age[:-STREAMS]:
            streams.pop(name, None)
        with cloudwatch_logs._log_events_lock:
            for stream in list(streams.values()):
                del stream["events"][:-LINES]
    for points in cloudwatch._metrics.all_values():
        del points[:-POINTS]
    for entries in eventbridge._events_log.all_values():
        del entries[:-EVENTS]


def forget_the_oldest_from_time_to_time():
    while True:
        time.sleep(10)
        forget_the_oldest()


# --- 14. Immutable tags with exclusions -----------------------------------------------------------

FILTERS = "imageTagMutabilityExclusionFilters"
create_repository, put_image_tag_mutability = ecr._create_repository, ecr._put_image_tag_mutability
put_manifest, put_image, repository_shape = ecr._v2_put_manifest, ecr._put_image, ecr._repo_shape
apply_repository_policies = provisioners._ecr_repo_apply_policies


def with_filters(name, filters, answer=None):
    if name in ecr._repositories and (answer is None or answer[0] == 200):
        ecr._repositories[name][FILTERS] = filters
    return answer


def apply_policies_and_filters(name, properties):
    filters = properties.get("ImageTagMutabilityExclusionFilters") or []
    prefix = "ImageTagMutabilityExclusionFilter"
    with_filters(name, [{"filterType": it[prefix + "Type"], "filter": it[prefix + "Value"]} for it in filters])
    return apply_repository_policies(name, properties)


@contextlib.contextmanager
def mutability_for(name, tag):
    """Gives a repository with exclusions the mutability that it has for a tag."""
    repository = ecr._repositories.get(name, {})
    mutability = repository.get("imageTagMutability")
    if mutability == "IMMUTABLE_WITH_EXCLUSION":
        excluded = any(fnmatch.fnmatchcase(tag or "", it["filter"]) for it in repository.get(FILTERS) or [])
        repository["imageTagMutability"] = "MUTABLE" if excluded else "IMMUTABLE"
    try:
        yield
    finally:
        if mutability:
            repository["imageTagMutability"] = mutability


def put_manifest_under_tag(name, reference, headers, body):
    with mutability_for(name, reference):
        return put_manifest(name, reference, headers, body)


def put_image_under_tag(data):
    with mutability_for(data.get("repositoryName", ""), data.get("imageTag")):
        return put_image(data)


ecr._create_repository = lambda data: with_filters(
    data.get("repositoryName"), data.get(FILTERS) or [], create_repository(data))
ecr._put_image_tag_mutability = lambda data: with_filters(
    data.get("repositoryName"), data.get(FILTERS) or [], put_image_tag_mutability(data))
ecr._repo_shape = lambda repository: repository_shape(repository) | {FILTERS: repository.get(FILTERS) or []}
ecr._v2_put_manifest = put_manifest_under_tag
ecr._put_image = put_image_under_tag
provisioners._ecr_repo_apply_policies = apply_policies_and_filters


# --- 16. The history of an execution --------------------------------------------------------------

MAX_EVENTS = 25_000
# The events of a state besides those of its attempts and branches: entered and exited, and for some started and
# succeeded.
EVENTS_OF_A_STATE = {"pass": 2, "choice": 2, "wait": 2, "task": 2, "parallel": 4, "map": 4}
# The events of an attempt: scheduled, started, and succeeded or failed.
EVENTS_OF_AN_ATTEMPT = 3
# The events of an item or branch besides those of its states: started and succeeded.
EVENTS_OF_A_BRANCH = 2
counting = threading.Lock()


def count_events(execution, number):
    if execution is None:
        return
    with counting:
        # Its own start and end count too.
        execution["eventCount"] = execution.get("eventCount", 2) + number
        if execution["eventCount"] > MAX_EVENTS:
            raise stepfunctions._ExecutionError(
                "States.Runtime", f"The execution reached the maximum number of history events ({MAX_EVENTS}).")


def limited(handler, number):
    """A state with its events and its data, of which MiniStack records nothing in a Map or Parallel."""
    def handle(state_def, data, *others):
        count_events(stepfunctions._executions.get((others[-1].get("Execution") or {}).get("Id", "")), number)
        check_data(json.dumps(data))
        output, following = handler(state_def, data, *others)
        check_data(json.dumps(output))
        return output, following
    return handle


for kind, number in EVENTS_OF_A_STATE.items():
    name = f"_execute_{kind}"
    setattr(stepfunctions, name, limited(getattr(stepfunctions, name), number))

run_branch, add_counted_event = stepfunctions._run_sub_machine, stepfunctions._add_event


def run_counted_branch(states, start, data, execution, ctx):
    count_events(execution, EVENTS_OF_A_BRANCH)
    return run_branch(states, start, data, execution, ctx)


def add_event_of_attempt(execution, event_type, details=None):
    if event_type == "TaskScheduled":
        count_events(execution, EVENTS_OF_AN_ATTEMPT)
    return add_counted_event(execution, event_type, details)


stepfunctions._run_sub_machine = run_counted_branch
stepfunctions._add_event = add_event_of_attempt


# --- 17. The lengths of errors and causes ---------------------------------------------------------

MAX_ERROR, MAX_CAUSE = 256, 32_768
make_error = stepfunctions._ExecutionError.__init__


def make_error_within_limits(self, error, cause):
    make_error(self, str(error)[:MAX_ERROR], str(cause)[:MAX_CAUSE])


stepfunctions._ExecutionError.__init__ = make_error_within_limits


# --- 18. Rules of security groups ---------------------------------------------------------------

def create_egress_rule(_logical_id, properties, _stack):
    group = properties["GroupId"]
    [rule] = provisioners._ec2_sg_permissions([properties])
    ec2._security_groups[group]["IpPermissionsEgress"].append(rule)
    return ec2._sg_rule_id(group, True, rule), {}


def delete_egress_rule(rule_id, properties):
    group = ec2._security_groups.get(properties["GroupId"])
    if group:
        group["IpPermissionsEgress"] = [
            rule for rule in group["IpPermissionsEgress"]
            if ec2._sg_rule_id(properties["GroupId"], True, rule) != rule_id]


provisioners._RESOURCE_HANDLERS["AWS::EC2::SecurityGroupEgress"] = {
    "create": create_egress_rule, "delete": delete_egress_rule}


# --- 19. The role of Application Auto Scaling ------------------------------------------------------

create_linked_role = iam._create_service_linked_role


def create_linked_role_by_its_name(p):
    if iam._p(p, "AWSServiceName") != SCALING_OF_ECS:
        return create_linked_role(p)
    if SCALING_ROLE in iam._roles:
        return iam._error(400, "InvalidInput", f"Service role name {SCALING_ROLE} has been taken in this account, "
                          "please try a different suffix.", ns="iam")
    # MiniStack makes the name from the first part of the service's, which ECS itself has too.
    name = "AWSServiceRoleForEcs"
    other = iam._roles.pop(name, None)
    status, headers, answer = create_linked_role(p)
    role = iam._roles.pop(name)
    role["RoleName"], role["Arn"] = SCALING_ROLE, role["Arn"].replace(name, SCALING_ROLE)
    iam._roles[SCALING_ROLE] = role
    if other:
        iam._roles[name] = other
    return status, headers, answer.replace(name.encode(), SCALING_ROLE.encode())


iam._IAM_HANDLERS["CreateServiceLinkedRole"] = create_linked_role_by_its_name


# --- 20. Elastic IP addresses and NAT gateways -----------------------------------------------------

def named_in(answer, element):
    """The text of an XML element in the answer of an operation."""
    return answer[2].decode().partition(f"<{element}>")[2].partition("<")[0]


def address_of(public_ip):
    return next((address for address in ec2._addresses.values() if address["PublicIp"] == public_ip), None)


def create_address(logical_id, props, stack_name):
    answer = ec2._allocate_address({"Domain": props.get("Domain") or "vpc"})
    allocation, public_ip = named_in(answer, "allocationId"), named_in(answer, "publicIp")
    provisioners._ec2_apply_tags(allocation, props)
    return public_ip, {"AllocationId": allocation, "PublicIp": public_ip}


def update_address(physical_id, old_props, new_props, stack_name, logical_id=None):
    """Only tags change without replacement."""
    address = address_of(physical_id)
    if address is None or old_props.get("Domain") != new_props.get("Domain"):
        created = create_address(logical_id or physical_id, new_props, stack_name)
        if address:
            provisioners._delete_predecessor(delete_address, physical_id, old_props)
        return created
    provisioners._ec2_apply_tags(address["AllocationId"], new_props, old_props)
    return physical_id, {"AllocationId": address["AllocationId"], "PublicIp": physical_id}


def delete_address(physical_id, props):
    address = address_of(physical_id)
    if address is None:
        return
    if address["AssociationId"]:
        raise ValueError(f"Address {physical_id} is in use. (Service: Ec2, Status Code: 400)")
    ec2._addresses.pop(address["AllocationId"])
    ec2._tags.pop(address["AllocationId"], None)


NAT_GATEWAY_SETTINGS = ("SubnetId", "AllocationId", "ConnectivityType")


def create_nat_gateway(logical_id, props, stack_name):
    subnet = ec2._subnets.get(props.get("SubnetId"))
    if subnet is None:
        raise ValueError(f"The subnet ID '{props.get('SubnetId')}' does not exist")
    address = None
    if (props.get("ConnectivityType") or "public") == "public":
        address = ec2._addresses.get(props.get("AllocationId"))
        if address is None:
            raise ValueError(f"Elastic IP address [{props.get('AllocationId')}] could not be found")
        if address["AssociationId"]:
            raise ValueError(f"Elastic IP address [{props['AllocationId']}] is already associated")
    given = {name: props[name] for name in NAT_GATEWAY_SETTINGS if name in props}
    gateway = named_in(ec2._create_nat_gateway(given), "natGatewayId")
    if address:
        address["AssociationId"] = f"eipassoc-{gateway.removeprefix('nat-')}"
    provisioners._ec2_apply_tags(gateway, props)
    return gateway, {"NatGatewayId": gateway}


def update_nat_gateway(physical_id, old_props, new_props, stack_name, logical_id=None):
    """Only tags change without replacement."""
    def key(props):
        return [props.get(name) for name in NAT_GATEWAY_SETTINGS]

    if physical_id not in ec2._nat_gateways or key(old_props) != key(new_props):
        created = create_nat_gateway(logical_id or physical_id, new_props, stack_name)
        provisioners._delete_predecessor(delete_nat_gateway, physical_id, old_props)
        return created
    provisioners._ec2_apply_tags(physical_id, new_props, old_props)
    return physical_id, {"NatGatewayId": physical_id}


def delete_nat_gateway(physical_id, props):
    gateway = ec2._nat_gateways.pop(physical_id, None) or {}
    ec2._tags.pop(physical_id, None)
    if address := ec2._addresses.get(gateway.get("AllocationId")):
        address["AssociationId"] = None


for kind, create, update, delete in (
        ("AWS::EC2::EIP", create_address, update_address, delete_address),
        ("AWS::EC2::NatGateway", create_nat_gateway, update_nat_gateway, delete_nat_gateway)):
    provisioners._RESOURCE_HANDLERS[kind] = {
        "create": create, "update": update, "update_with_logical_id": True, "delete": delete}
    provisioners._STACK_TAG_PROPERTY[kind] = ("Tags", "list")


# --- 21. Changes of conditions --------------------------------------------------------------------

resolve_for_diff = changesets._resolve_props_for_diff


def resolve_without_what_is_not_there(template, params, stack_name, stack_id):
    resolved = resolve_for_diff(template, params, stack_name, stack_id)
    conditions = changesets._evaluate_conditions(template, params) if template else {}
    resources = resolved.get("Resources", {})
    for name in [name for name, it in resources.items() if not conditions.get(it.get("Condition"), True)]:
        del resources[name]
    return resolved


changesets._resolve_props_for_diff = resolve_without_what_is_not_there


# --- 22. Parameters -------------------------------------------------------------------------------

STANDARD_VALUE, ADVANCED_VALUE, NAMES = 4096, 8192, 10
put_parameter, get_parameter, get_parameters = ssm._put_parameter, ssm._get_parameter, ssm._get_parameters
delete_parameter = ssm._delete_parameter


def put_parameter_within_limits(data):
    value = str(data.get("Value") or "")
    size = len(value.encode())
    tier = data.get("Tier") or ssm._default_tier(data, value, ssm._parameters.get(data.get("Name")))
    if tier == "Intelligent-Tiering":
        tier = "Advanced" if size > STANDARD_VALUE else "Standard"
    if "{{" in value:
        problem = "Parameter value can't nest another parameter. Do not use \"{{}}\" in the value."
    elif tier == "Standard" and size > STANDARD_VALUE:
        problem = (f"Standard tier parameters support a maximum parameter value of {STANDARD_VALUE} characters. To "
                   "create a larger parameter value, upgrade the parameter to use the advanced-parameter tier. For "
                   "more information, see https://docs.aws.amazon.com/systems-manager/latest/userguide/"
                   "parameter-store-advanced-parameters.html")
    elif size > ADVANCED_VALUE:
        problem = f"Advanced tier parameters support a maximum parameter value of {ADVANCED_VALUE} characters."
    else:
        return put_parameter({**data, "Tier": tier})
    return error_response_json("ValidationException", problem, 400)


def get_few_parameters(data):
    names = data.get("Names") or []
    if not 1 <= len(names) <= NAMES:
        return error_response_json(
            "ValidationException",
            f"1 validation error detected: Value '[{', '.join(names)}]' at 'names' failed to satisfy constraint: "
            f"Member must have length {'less' if names else 'greater'} than or equal to {NAMES if names else 1}", 400)
    # The order of the answer is not that of the request.
    return get_parameters({**data, "Names": sorted(names)})


def not_found_without_message(handler):
    def handle(data):
        status, headers, body = handler(data)
        if status == 400 and json.loads(body)["__type"] == "ParameterNotFound":
            body = json.dumps({"__type": "ParameterNotFound"}).encode()
        return status, headers, body
    return handle


ssm._put_parameter = put_parameter_within_limits
ssm._get_parameter = not_found_without_message(get_parameter)
ssm._get_parameters = get_few_parameters
ssm._delete_parameter = not_found_without_message(delete_parameter)


# --- 23. Task definitions -------------------------------------------------------------------------

resolve_td_key = ecs._resolve_td_key
register_task_definition = ecs._ACTION_MAP["RegisterTaskDefinition"]
describe_task_definition = ecs._ACTION_MAP["DescribeTaskDefinition"]


def latest_active_key(ref):
    key = resolve_td_key(ref)
    family = str(ref or "").rpartition("task-definition/")[2]
    if key is None or ":" in family:
        return key
    active = [definition["revision"] for definition in ecs._task_defs.values()
              if definition["family"] == family and definition["status"] == "ACTIVE"]
    return f"{family}:{max(active)}" if active else family


def without_empty_members(definition):
    """MiniStack has empty texts for members such as ipcMode, which AWS leaves out and would not register."""
    return {name: value for name, value in definition.items() if value not in ("", None)}


def register_with_all_members(data):
    status, headers, body = register_task_definition(data)
    if status != 200:
        return status, headers, body
    answer = json.loads(body)
    definition = ecs._task_defs[resolve_td_key(answer["taskDefinition"]["taskDefinitionArn"])]
    definition.update({name: value for name, value in data.items() if name not in definition and name != "tags"})
    return json_response({**answer, "taskDefinition": without_empty_members(definition)})


def describe_task_definition_as_asked(data):
    status, headers, body = describe_task_definition(data)
    if status != 200:
        return error_response_json("ClientException", "Unable to describe task definition.", status)
    answer = json.loads(body)
    if "TAGS" not in (data.get("include") or []):
        answer["tags"] = []
    return json_response({**answer, "taskDefinition": without_empty_members(answer["taskDefinition"])})


# What a template names otherwise than the API does, besides the case of the first letter, and maps whose names are
# the user's own.
TEMPLATE_NAMES = {"EFSVolumeConfiguration": "efsVolumeConfiguration", "FilesystemId": "fileSystemId", "IAM": "iam",
                  "FSxWindowsFileServerVolumeConfiguration": "fsxWindowsFileServerVolumeConfiguration"}
USER_NAMED = {"DockerLabels", "DriverOpts", "Labels", "Options"}
create_task_definition = provisioners._ecs_task_def_create


def with_api_names(value):
    """A part of a template with the names of the API at all depths."""
    if isinstance(value, list):
        return [with_api_names(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {TEMPLATE_NAMES.get(name, name[:1].lower() + name[1:]): item if name in USER_NAMED else with_api_names(item)
            for name, item in value.items()}


def create_task_definition_with_all_members(logical_id, properties, stack_name):
    arn, attributes = create_task_definition(logical_id, properties, stack_name)
    members = with_api_names({name: value for name, value in properties.items() if name != "Tags"})
    ecs._task_defs[resolve_td_key(arn)].update(members)
    return arn, attributes


ecs._resolve_td_key = latest_active_key
provisioners._ecs_task_def_create = create_task_definition_with_all_members
provisioners._RESOURCE_HANDLERS["AWS::ECS::TaskDefinition"]["create"] = create_task_definition_with_all_members
ecs._ACTION_MAP["RegisterTaskDefinition"] = register_with_all_members
ecs._ACTION_MAP["DescribeTaskDefinition"] = describe_task_definition_as_asked


# --- 24. Metrics and alarms -----------------------------------------------------------------------

QUERY_ID = re.compile("[a-z][a-zA-Z0-9_]*")
get_metric_data = cloudwatch._get_metric_data


def get_metric_data_as_asked(params, data, is_cbor, is_json=False):
    ids = [str(query.get("Id")) for query in data.get("MetricDataQueries") or []]
    wrong = [f"The value {it} for parameter MetricDataQueries.member.{number}.Id is not matching the expected pattern "
             f"^{QUERY_ID.pattern}$." for number, it in enumerate(ids, start=1) if not QUERY_ID.fullmatch(it)]
    if len(ids) != len(set(ids)):
        wrong.append("The values for parameter id in MetricDataQueries are not unique.")
    if wrong:
        return cloudwatch._error("ValidationError", wrong[0], 400, use_json=is_json, use_cbor=is_cbor)
    if start := cloudwatch._parse_ts(data.get("StartTime")):
        data = {**data, "StartTime": start // 60 * 60}
    if not (is_cbor or is_json):
        return get_metric_data(params, data, is_cbor, is_json)
    _, _, body = get_metric_data(params, data, False, True)
    results = json.loads(body)["MetricDataResults"]
    if data.get("ScanBy") != "TimestampAscending":
        for result in results:
            result.update({name: result[name][::-1] for name in ("Timestamps", "Values")})
    if is_cbor:
        return cloudwatch._cbor_ok({"MetricDataResults": [cloudwatch._cbor_metric_data_result(it) for it in results]})
    return cloudwatch._json_ok({"MetricDataResults": results})


COMPARISONS = {
    "GreaterThanOrEqualToThreshold": operator.ge, "GreaterThanThreshold": operator.gt,
    "LessThanOrEqualToThreshold": operator.le, "LessThanThreshold": operator.lt}
# The metrics that have data which no alarm has seen.
unseen = set()
# When the states of alarms changed, by ARN. An update of an alarm replaces all else that is known about it.
transitions = {}
store_datum, record_history = cloudwatch._store_datum, cloudwatch._record_history


def metric_of(alarm):
    dimensions = cloudwatch._dims_from_list(alarm.get("Dimensions") or [])
    return alarm.get("Namespace"), alarm.get("MetricName"), cloudwatch._dims_key(dimensions)


def store_unseen_datum(namespace, name, dimensions, *others):
    store_datum(namespace, name, dimensions, *others)
    unseen.add((namespace, name, cloudwatch._dims_key(dimensions)))


def evaluate_alarms_with_unseen_data():
    """So that a state which somebody sets stays until there is new data. AWS evaluates each alarm once a minute."""
    for alarm in list(cloudwatch._alarms.values()):
        if metric_of(alarm) in unseen:
            evaluate_alarm(alarm)
    unseen.clear()


def evaluate_alarm(alarm):
    """Compares the last periods up to the newest data."""
    if alarm["AlarmArn"] in transitions:
        alarm["StateTransitionedTimestamp"] = transitions[alarm["AlarmArn"]]
    points, compare = cloudwatch._metrics.get(metric_of(alarm)), COMPARISONS.get(alarm.get("ComparisonOperator"))
    if not points or not compare:
        return
    period, periods = alarm["Period"], alarm["EvaluationPeriods"]
    statistic = alarm.get("ExtendedStatistic") or alarm["Statistic"]
    end = (max(point["Timestamp"] for point in points) // 60 + 1) * 60
    breaching = 0
    for number in range(periods):
        last = end - number * period
        within = [point for point in points if last - period <= point["Timestamp"] < last]
        value = cloudwatch._stat_value(cloudwatch._calc_stats(within), statistic, within) if within else None
        if value is None:
            breaching += alarm.get("TreatMissingData") == "breaching"
        else:
            breaching += compare(value, alarm["Threshold"])
    before, after = alarm["StateValue"], "ALARM" if breaching >= (alarm.get("DatapointsToAlarm") or periods) else "OK"
    if before != after:
        alarm["StateValue"] = after
        alarm["StateReason"] = f"Threshold Crossed: {breaching} datapoints were breaching the threshold."
        cloudwatch._record_history(alarm["AlarmName"], before, after, alarm["StateReason"])
        cloudwatch._dispatch_alarm_actions(alarm, before, after, alarm["StateReason"])
        cloudwatch._evaluate_parent_alarms(alarm)


def record_history_with_its_time(name, before, after, *others, **named):
    alarm = cloudwatch._alarms.get(name) or cloudwatch._composite_alarms.get(name)
    if alarm:
        # MiniStack records a creation like a change.
        now = transitions[alarm["AlarmArn"]] = time.time()
        alarm["StateUpdatedTimestamp"] = alarm["StateTransitionedTimestamp"] = now
    return record_history(name, before, after, *others, **named)


cloudwatch._get_metric_data = get_metric_data_as_asked
cloudwatch._store_datum = store_unseen_datum
cloudwatch._evaluate_all_alarms = evaluate_alarms_with_unseen_data
cloudwatch._evaluate_alarm = evaluate_alarm
cloudwatch._record_history = record_history_with_its_time


# --- 25. Tasks that wait for a token ----------------------------------------------------------------

WAITS_FOR_TOKEN = ".waitForTaskToken"
# The default of TimeoutSeconds.
LONGEST_TASK = 99_999_999
CLOSED_TOKENS = 10_000
TASK_EVENTS = ("TaskScheduled", "TaskSubmitted", "TaskSucceeded", "TaskFailed")
# The tokens of tasks that are over, oldest first.
closed_tokens = {}
# What decides whether an answer or the end of the time comes first.
deciding = threading.Lock()
# What an attempt was asked for.
arguments_given = contextvars.ContextVar("arguments_given", default=None)
# The input and the context of a task.
task = contextvars.ContextVar("task")

execute_any_task, add_raw_event = stepfunctions._execute_task, stepfunctions._add_event
apply_arguments, apply_parameters = stepfunctions._apply_jsonata_arguments, stepfunctions._apply_parameters
invoke_with_timeout, stop_execution = stepfunctions._invoke_resource_with_timeout, stepfunctions._stop_execution


def execute_task_with_context(state_def, raw_input, execution, ctx):
    task.set((raw_input, ctx))
    return execute_any_task(state_def, raw_input, execution, ctx)


def for_each_attempt(apply):
    """The arguments of an attempt. They may contain its token."""
    def handle(state_def, data, ctx=None):
        if WAITS_FOR_TOKEN in str(state_def.get("Resource")):
            ctx["Task"] = {"Token": base64.b64encode(os.urandom(510)).decode()}
        given = apply(state_def, data, ctx)
        arguments_given.set(given)
        return given
    return handle


def timeout_seconds(value):
    """TimeoutSeconds, which may be an expression."""
    return stepfunctions._jsonata_state_field({"TimeoutSeconds": value}, "TimeoutSeconds", "number", *task.get())


def invoke_with_any_timeout(resource, input_data, timeout):
    # It is not scaled, because it limits the time of real work.
    return invoke_with_timeout(resource, input_data, timeout_seconds(timeout))


def invoke_and_wait_for_token(resource, input_data, token, state_def):
    seconds = timeout_seconds(state_def.get("TimeoutSeconds", LONGEST_TASK))
    execution = stepfunctions._executions[task.get()[1]["Execution"]["Id"]]
    waiting = {"event": threading.Event(), "execution": execution["executionArn"], "result": None, "error": None}
    stepfunctions._task_tokens[token] = waiting
    try:
        submitted = stepfunctions._invoke_resource(resource.replace(WAITS_FOR_TOKEN, ""), input_data)
        stepfunctions._add_event(execution, "TaskSubmitted", {
            "taskSubmittedEventDetails": {"resource": resource, "output": json.dumps(submitted)}})
        began = time.monotonic()
        waiting["event"].wait(min(seconds * TIME_SCALE, threading.TIMEOUT_MAX))
        with deciding:
            answered = waiting["event"].is_set()
            waiting["event"].set()
        if TIME_SCALE:
            waited = time.monotonic() - began
            left_out.set(left_out.get() + waited / TIME_SCALE - waited)
    finally:
        stepfunctions._task_tokens.pop(token, None)
        closed_tokens[token] = None
        for oldest in list(closed_tokens)[:-CLOSED_TOKENS]:
            closed_tokens.pop(oldest, None)
    if waiting.get("stopped"):
        # Ends the thread: no state catches this.
        raise SystemExit
    if not answered:
        raise stepfunctions._ExecutionError("States.Timeout", "")
    if waiting["error"]:
        raise stepfunctions._ExecutionError(waiting["error"]["Error"], waiting["error"]["Cause"])
    return json.loads(waiting["result"])


def answer_once(handler):
    def handle(data):
        token, output = data.get("taskToken"), data.get("output")
        waiting = stepfunctions._task_tokens.get(token)
        if waiting is None and token not in closed_tokens:
            return error_response_json("InvalidToken", "Invalid Token: 'Invalid token'", 400)
        with deciding:
            if waiting is None or waiting["event"].is_set():
                return error_response_json(
                    "TaskTimedOut", "Task Timed Out: 'Provided task does not exist anymore'", 400)
            if output is not None and not is_output(output):
                return error_response_json("InvalidOutput", "Invalid Output: 'Output is not valid JSON'", 400)
            return handler(data)
    return handle


def is_output(text):
    try:
        json.loads(text)
    except ValueError:
        return False
    return len(text.encode()) <= MAX_DATA


def stop_execution_and_its_tasks(data):
    answer = stop_execution(data)
    if answer[0] == 200:
        for waiting in list(stepfunctions._task_tokens.values()):
            if waiting.get("execution") == data.get("executionArn"):
                with deciding:
                    waiting["stopped"] = True
                    waiting["event"].set()
    return answer


def add_task_event(execution, event_type, details=None):
    """The events of tasks have the members that AWS gives them."""
    if event_type not in TASK_EVENTS:
        return add_raw_event(execution, event_type, details)
    [(name, members)] = details.items()
    service, _, action = members["resource"].removeprefix("arn:aws:states:::").rpartition(":")
    if service and ":" not in service.removeprefix("aws-sdk:"):
        members = {**members, "resourceType": service, "resource": action}
    if event_type == "TaskScheduled":
        members.update(region=get_region(), parameters=json.dumps(arguments_given.get()))
    elif event_type == "TaskSubmitted":
        count_events(execution, 1)
    elif members.get("error") == "States.Timeout":
        event_type, name = "TaskTimedOut", "taskTimedOutEventDetails"
    return add_raw_event(execution, event_type, {name: members})


stepfunctions._execute_task = execute_task_with_context
stepfunctions._apply_jsonata_arguments = for_each_attempt(apply_arguments)
stepfunctions._apply_parameters = for_each_attempt(apply_parameters)
stepfunctions._invoke_resource_with_timeout = invoke_with_any_timeout
stepfunctions._invoke_with_callback = invoke_and_wait_for_token
stepfunctions._send_task_success = answer_once(stepfunctions._send_task_success)
stepfunctions._send_task_failure = answer_once(stepfunctions._send_task_failure)
stepfunctions._send_task_heartbeat = answer_once(stepfunctions._send_task_heartbeat)
stepfunctions._stop_execution = stop_execution_and_its_tasks
stepfunctions._add_event = add_task_event


# --- The process --------------------------------------------------------------------------------

def end_process_group(*_):
    """Ends this process and all function processes that it started; it leads their process group."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with contextlib.suppress(OSError):
        os.killpg(os.getpgrp(), signal.SIGTERM)
    if temporary := os.environ.get("LOCALCLOUD_TEMPORARY"):
        shutil.rmtree(temporary, ignore_errors=True)
    os._exit(0)


def end_when_standard_input_ends():
    while sys.stdin.buffer.raw.read(4096):
        pass
    # Signal handlers run only in the main thread. If that is stuck, the group is killed.
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(2)
    os.killpg(os.getpgrp(), signal.SIGKILL)


async def serve():
    from hypercorn.asyncio import serve as hypercorn_serve
    from hypercorn.config import Config

    config = Config()
    config.bind = [f"fd://{SOCKET}"]
    config.keep_alive_timeout = 75
    config.accesslog = None
    # A trigger of our own, which never fires, keeps Hypercorn from taking SIGTERM for itself.
    await hypercorn_serve(application, config, shutdown_trigger=asyncio.Event().wait)


if __name__ == "__main__":
    if os.getpgrp() != os.getpid():
        os.setpgid(0, 0)
    threading.Thread(target=end_when_standard_input_ends, daemon=True).start()
    threading.Thread(target=end_idle_environments, daemon=True).start()
    threading.Thread(target=forget_the_oldest_from_time_to_time, daemon=True).start()
    signal.signal(signal.SIGTERM, end_process_group)
    asyncio.run(serve())
