//! The pairs of CPU and memory that Fargate offers.
//! <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/fargate-tasks-services.html#fargate-tasks-size>

use crate::ecs::answer::Refusal;

/// Checks a task's size. `cpu` is in CPU units (`"256"`) or vCPUs (`".25 vCPU"`), `memory` in MiB
/// (`"512"`) or gigabytes (`"0.5 GB"`).
///
/// # Errors
/// `ClientException` with the message of Fargate, if the size does not exist.
pub fn check(cpu: &str, memory: &str) -> Result<(), Refusal> {
    let Some((units, mib)) = units_and_mib(cpu, memory) else {
        return Err(Refusal::client(format!(
            "Invalid setting for container or task size: cpu '{cpu}', memory '{memory}'."
        )));
    };
    if offered(units, mib) {
        Ok(())
    } else {
        Err(Refusal::client(format!(
            "No Fargate configuration exists for given values: {units} CPU, {mib} memory. See the \
             Amazon ECS documentation for the valid values."
        )))
    }
}

/// A size in CPU units and MiB. `None` if it is not written as ECS requires.
pub fn units_and_mib(cpu: &str, memory: &str) -> Option<(u32, u32)> {
    Some((cpu_units(cpu)?, memory_mib(memory)?))
}

/// Lowest and highest memory in GB and the step between sizes, per CPU size.
fn offered(units: u32, mib: u32) -> bool {
    let (low, high, step) = match units {
        256 => return [512, 1024, 2048].contains(&mib),
        512 => (1, 4, 1),
        1024 => (2, 8, 1),
        2048 => (4, 16, 1),
        4096 => (8, 30, 1),
        8192 => (16, 60, 4),
        16384 => (32, 120, 8),
        32768 => return [60, 120, 244].map(|gb| gb * 1024).contains(&mib),
        _ => return false,
    };
    mib.is_multiple_of(1024) && {
        let gb = mib / 1024;
        (low..=high).contains(&gb) && (gb - low).is_multiple_of(step)
    }
}

fn cpu_units(text: &str) -> Option<u32> {
    let text = text.trim();
    match text.to_ascii_lowercase().strip_suffix("vcpu") {
        Some(vcpus) => scaled(vcpus),
        None => text.parse().ok(),
    }
}

fn memory_mib(text: &str) -> Option<u32> {
    let text = text.trim();
    match text.to_ascii_lowercase().strip_suffix("gb") {
        Some(gb) => scaled(gb),
        None => text.parse().ok(),
    }
}

/// A decimal number times 1024, if the result is a whole number.
fn scaled(decimal: &str) -> Option<u32> {
    let value = decimal.trim().parse::<f64>().ok()? * 1024.0;
    // The sizes of Fargate are whole numbers far below 2^32.
    (value.fract() == 0.0 && (0.0..1e9).contains(&value)).then_some(value as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_of_the_table_are_accepted() {
        for (cpu, memory) in [
            ("256", "512"),
            ("256", "2048"),
            (".25 vCPU", "0.5 GB"),
            ("512", "4096"),
            ("1024", "2048"),
            ("1 vCPU", "8GB"),
            ("2048", "16384"),
            ("4096", "30720"),
            ("8192", "20480"),
            ("16384", "122880"),
        ] {
            check(cpu, memory).unwrap_or_else(|refusal| panic!("{cpu}/{memory}: {refusal:?}"));
        }
    }

    #[test]
    fn sizes_outside_the_table_are_refused_with_the_message_of_fargate() {
        for (cpu, memory) in [
            ("256", "4096"),
            ("256", "1536"),
            ("512", "512"),
            ("300", "512"),
            ("1024", "2500"),
            ("8192", "18432"),
        ] {
            let refusal = check(cpu, memory).unwrap_err();
            assert_eq!(refusal.code, "ClientException");
            assert!(
                refusal
                    .message
                    .starts_with("No Fargate configuration exists for given values:"),
                "{}",
                refusal.message
            );
        }
    }

    #[test]
    fn text_that_is_not_a_size_is_refused() {
        assert!(check("many", "512").is_err());
        assert!(check("256", "").is_err());
    }
}
