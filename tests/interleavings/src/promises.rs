//! What must hold: after every step, and at every end.

use crate::call::{ANNOUNCED, DELETING, DRAINING, Deployment, LIVE, READY, RESTORING, ROLLED_BACK};
use crate::explore::Exploration;
use crate::learned::{Ending, Next};
use crate::scenario::{Death, Plan};
use crate::state::{Stage, State};
use crate::world::{Group, World};

impl Exploration<'_> {
    /// Checks a state in which everything has ended. Returns whether no execution was excused, other than an operator's
    /// change that another one has followed.
    pub(crate) fn check_end(&mut self, state: &State) -> Result<bool, String> {
        for execution in &state.executions {
            if !matches!(execution.stage, Stage::Ended(_) | Stage::Stopped) {
                return Err(format!("an execution hangs: {:?}", execution.stage));
            }
        }
        self.check_next(state)?;
        let mut world = state.world.clone();
        if let Some(active) = world.default
            && state.lost < self.scenario.lost
        {
            // A mark may have landed after it was taken back. The cleanup removes it.
            world.group_mut(active).marks &= !(DELETING | ROLLED_BACK);
        }
        let world = &world;
        let newest = newest_ready(world);
        // One that could not go on to the end cannot correct what it has done. That the next one does was
        // checked above.
        let plans = || self.scenario.plans.iter().enumerate();
        let is_excused = |execution: usize| self.could_not_go_on(state, execution);
        let is_left_by_an_excused_one = |deployment: Deployment| {
            plans().any(|(number, plan)| {
                let rollback = state.executions[number].rollback;
                let replaced = rollback.map_or(0, |it| it.replaced);
                let is_concerned =
                    plan.deployment() == deployment || replaced & (1 << deployment) != 0;
                is_excused(number) && is_concerned
            })
        };
        let is_set_by_an_excused_one = state.set_by.is_some_and(is_excused);
        if newest != world.default
            && !is_set_by_an_excused_one
            && !newest.is_some_and(is_left_by_an_excused_one)
        {
            return Err(format!(
                "the end is {:?}, the newest ready one {newest:?}",
                world.default
            ));
        }
        for (number, _) in plans() {
            self.check_taken_back(state, number)?;
            self.check_evicted(state, number)?;
        }
        self.check_rules(state)?;
        if let Some(active) = world.default {
            let marks = world.group(active).marks;
            if marks & (DELETING | ROLLED_BACK) != 0 && !is_left_by_an_excused_one(active) {
                return Err(format!(
                    "{active} is active and is rolled back or being deleted"
                ));
            }
            if marks & LIVE == 0 {
                return Err(format!("{active} is active and not marked as live"));
            }
            for (number, plan) in plans() {
                if plan.switches() && !is_excused(number) && !is_set_by_an_excused_one {
                    self.check_ending(state, number, active)?;
                }
            }
        }
        let is_an_operators = |plan: &Plan| matches!(plan, Plan::Split(_));
        let excuses = plans().any(|(number, plan)| is_excused(number) && !is_an_operators(plan));
        Ok(!excuses && !is_set_by_an_excused_one)
    }

    /// Whether a rollback that failed has let its target go, and has marked it again if an earlier rollback had taken
    /// it back.
    fn check_taken_back(&self, state: &State, number: usize) -> Result<(), String> {
        let execution = &state.executions[number];
        let (Some(rollback), Stage::Ended(Ending::TakenBack)) =
            (execution.rollback, execution.stage)
        else {
            return Ok(());
        };
        // A mark may have landed after it was taken back.
        if state.lost < self.scenario.lost {
            return Ok(());
        }
        let own = self.scenario.plans[number].deployment();
        let group = state.world.group(own);
        if group.marks & RESTORING != 0 {
            return Err(format!("{own} is kept for a rollback that has ended"));
        }
        // It may have been live in the meantime.
        let has_moved = state.world.default != rollback.active;
        if rollback.was_rolled_back && group.exists && !has_moved && group.marks & ROLLED_BACK == 0
        {
            return Err(format!(
                "{own} was taken back before, and the rollback to it that failed has not marked it again"
            ));
        }
        Ok(())
    }

    /// Whether what was not taken back has its rules, unless it is deleted.
    fn check_rules(&self, state: &State) -> Result<(), String> {
        let is_deleted = |deployment| {
            let mut plans = self.scenario.plans.iter();
            plans.any(|plan| plan.deletes() && plan.deployment() == deployment)
        };
        let before = self.scenario.world.groups.iter();
        for (deployment, (before, group)) in (0..).zip(before.zip(&state.world.groups)) {
            let is_found =
                state.world.default == Some(deployment) && self.may_have_lost_rules(state);
            let is_wanted = before.is_pinned() && group.marks & ROLLED_BACK == 0 && !is_found;
            if is_wanted && !group.is_pinned() && !is_deleted(deployment) {
                return Err(format!(
                    "{deployment} was not taken back, and lost its rules"
                ));
            }
        }
        Ok(())
    }

    /// Whether no request reaches what an execution has evicted, by the default action or a rule. A rollback to it that has
    /// begun makes its rules again.
    fn check_evicted(&self, state: &State, number: usize) -> Result<(), String> {
        let evicted = state.executions[number].evicted;
        let is_evicted = |it: &Deployment| evicted & (1 << *it) != 0;
        let others = || {
            (0..)
                .zip(&self.scenario.plans)
                .filter(|(it, _)| *it != number)
        };
        for deployment in (0..8).filter(is_evicted) {
            let is_wanted = others().any(|(other, plan)| {
                let began = state.executions[other].rollback.is_some();
                plan.rolls_back() && plan.deployment() == deployment && began
            });
            let is_named = state.world.named().any(|named| named == deployment);
            if !is_wanted && (is_named || state.world.group(deployment).rules != 0) {
                return Err(format!(
                    "{deployment} was evicted, and requests still reach it"
                ));
            }
        }
        Ok(())
    }

    /// Whether what an execution has reported is true.
    fn check_ending(&self, state: &State, number: usize, active: Deployment) -> Result<(), String> {
        let (world, execution) = (&state.world, &state.executions[number]);
        let own = self.scenario.plans[number].deployment();
        let live = matches!(
            execution.stage,
            Stage::Ended(Ending::Switched | Ending::Failed("DeploymentActiveError"))
        );
        let taken_back = |deployment: Deployment| world.group(deployment).marks & ROLLED_BACK != 0;
        let newer = active > own
            || (own + 1..)
                .zip(&world.groups[usize::from(own) + 1..])
                .any(|(d, _)| taken_back(d));
        if live && !newer && active != own && !taken_back(own) {
            return Err(format!("{own} ended as live, but {active} is active"));
        }
        if execution.switch == Some(Ending::Superseded) && !live && !newer {
            return Err(format!("{own} ended as superseded, but {active} is active"));
        }
        // A second rollback to it is refused.
        if active == own && !live && execution.switch.is_some() {
            return Err(format!(
                "{own} is active, but ended as {:?}",
                execution.stage
            ));
        }
        Ok(())
    }

    /// Whether an execution was stopped, given up, or failed because its change of the listener was denied or not
    /// answered, or is an operator's.
    fn could_not_go_on(&self, state: &State, number: usize) -> bool {
        let execution = &state.executions[number];
        let given_up = match self.scenario.death {
            Some((who, Death::GivenUp)) => who == number && state.deaths == 0,
            _ => false,
        };
        given_up
            || execution.stage == Stage::Stopped
            || execution.is_denied && matches!(execution.switch, Some(Ending::Failed(_)))
            || matches!(self.scenario.plans[number], Plan::Split(_))
    }

    /// The next deployment goes live, after any order.
    fn check_next(&mut self, state: &State) -> Result<(), String> {
        let mut world = state.world.clone();
        for group in &mut world.groups {
            group.marks &= !ANNOUNCED;
        }
        let next = Deployment::try_from(world.groups.len()).expect("a few deployments");
        world.groups.push(Group::with(0));
        let may_lack_rules = self.may_have_lost_rules(state);
        let plan = Plan::Deploy(next);
        let Stage::Runs(_, mut point) = self.beginning(plan) else {
            unreachable!("it begins with the switch");
        };
        let ending = loop {
            let call = match self.learned.next(point) {
                Next::Calls(call) => call.clone(),
                Next::Ends(ending) => break *ending,
            };
            let answer = self.answer(point, &mut world, &call);
            check(&world, false, may_lack_rules)?;
            point = self.learned.after(point, &answer);
        };
        if (ending, world.default, world.also) != (Ending::Switched, Some(next), None) {
            return Err(format!(
                "the next deployment ends as {ending:?}, and {:?} is active",
                world.default
            ));
        }
        check(&world, true, false)
    }

    /// Whether an eviction may have deleted a rule of what was made live since: by a call that landed late, or because a
    /// switch was tried again that had ended before. A cleanup makes the missing rules of the active deployment again.
    pub(crate) fn may_have_lost_rules(&self, state: &State) -> bool {
        let scenario = self.scenario;
        let faults = (scenario.failures, scenario.lost) != (state.failures, state.lost);
        let evicts = scenario.plans.iter().any(|plan| plan.evicts());
        evicts && (faults || self.has_died(state))
    }
}

/// The newest deployment that the default action may name.
fn newest_ready(world: &World) -> Option<Deployment> {
    let is_ready = |deployment: Deployment, group: &Group| {
        group.healthy()
            && group.marks & READY != 0
            && group.marks & (ROLLED_BACK | DELETING) == 0
            && (group.marks & DRAINING == 0 || world.default == Some(deployment))
    };
    (0..)
        .zip(&world.groups)
        .filter(|(deployment, group)| is_ready(*deployment, group))
        .map(|(deployment, _)| deployment)
        .max()
}

/// Checks what must hold after every step. `is_clean` says that no call has failed, and `may_lack_rules` that the active
/// deployment may lack rules until a cleanup.
pub(crate) fn check(world: &World, is_clean: bool, may_lack_rules: bool) -> Result<(), String> {
    for active in world.named() {
        let group = world.group(active);
        if !group.is_pinned() && !may_lack_rules {
            return Err(format!("{active} is active and lost its rules"));
        }
        if !group.healthy() {
            return Err(format!(
                "the default action names {active}, which has no healthy target"
            ));
        }
        if group.drains() {
            return Err(format!(
                "the default action names {active}, whose tasks were asked to drain"
            ));
        }
        // An undo and a drain look at the ready tag to see a switch coming.
        if group.marks & READY == 0 {
            return Err(format!(
                "the default action names {active}, which was not announced"
            ));
        }
        // A run that removes the mark of a failed switch reads the listener again right after, and restores
        // the mark.
        if group.marks & LIVE == 0 && is_clean {
            return Err(format!(
                "the default action names {active}, which is not marked as live"
            ));
        }
    }
    Ok(())
}
