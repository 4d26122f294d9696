//! The sizes that Fargate offers.
//!
//! <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/fargate-tasks-services.html>

/// CPU units, then the memory in MiB that Fargate offers with them: from, to, and the increment.
const SIZES: [(u32, u32, u32, usize); 8] = [
    (256, 512, 2048, 512),
    (512, 1024, 4096, 1024),
    (1024, 2048, 8192, 1024),
    (2048, 4096, 16384, 1024),
    (4096, 8192, 30720, 1024),
    (8192, 16384, 61440, 4096),
    (16384, 32768, 122_880, 8192),
    (32768, 61440, 249_856, 4096),
];

fn memories(cpu: u32) -> Option<Vec<u32>> {
    let (_, from, to, step) = *SIZES.iter().find(|(size, ..)| *size == cpu)?;
    Some(match cpu {
        // The memory of the smallest and of the largest size does not grow in even increments.
        256 => vec![512, 1024, 2048],
        32768 => vec![61440, 122_880, 249_856],
        _ => (from..=to).step_by(step).collect(),
    })
}

/// The CPU sizes that Fargate offers.
pub fn cpus() -> impl Iterator<Item = u32> {
    SIZES.iter().map(|(size, ..)| *size)
}

/// The least memory in MiB that Fargate offers with a CPU size, if it offers that size.
pub fn least_memory(cpu: u32) -> Option<u32> {
    memories(cpu)?.first().copied()
}

/// Whether Fargate offers that memory in MiB with any CPU size.
pub fn is_memory(memory: u32) -> bool {
    cpus()
        .filter_map(memories)
        .any(|memories| memories.contains(&memory))
}

/// Whether Fargate offers that size.
///
/// # Errors
/// The field that is wrong, and which values it may have.
pub fn check(cpu: u32, memory: u32) -> Result<(), (&'static str, String)> {
    let listed = |values: Vec<u32>| {
        values
            .iter()
            .map(u32::to_string)
            .collect::<Vec<_>>()
            .join(", ")
    };
    let Some(sizes) = memories(cpu) else {
        let offered = listed(cpus().collect());
        let why = format!("Fargate does not offer {cpu} CPU units; it offers {offered}");
        return Err(("cpu", why));
    };
    if sizes.contains(&memory) {
        Ok(())
    } else {
        let offered = listed(sizes);
        let mut why =
            format!("Fargate does not offer {memory} MiB with cpu {cpu}; it offers {offered}");
        let with: Vec<_> = cpus()
            .filter(|cpu| memories(*cpu).is_some_and(|it| it.contains(&memory)))
            .collect();
        if !with.is_empty() {
            why += &format!(", and {memory} MiB goes with cpu {}", listed(with));
        }
        Err(("memory", why))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ends_and_steps_of_every_row_hold() {
        for (cpu, memory, offered) in [
            (256, 512, true),
            (256, 1536, false),
            (256, 2048, true),
            (512, 512, false),
            (512, 4096, true),
            (1024, 2048, true),
            (1024, 9216, false),
            (2048, 16384, true),
            (4096, 30720, true),
            (4096, 31744, false),
            (8192, 20480, true),
            (8192, 17408, false),
            (16384, 122_880, true),
            (32768, 122_880, true),
            (32768, 65536, false),
            (128, 512, false),
        ] {
            assert_eq!(check(cpu, memory).is_ok(), offered, "{cpu}/{memory}");
        }
    }
}
