//! A trace as text.

use std::fmt::Write as _;

use super::{Outcome, Route, Stack, Trace};

/// The steps, one per line, and what comes of them.
pub fn render(trace: &Trace) -> String {
    let mut text = String::new();
    let packet = &trace.packet;
    let mut line = |what: &str, said: &str| {
        // Writing to a String cannot fail.
        let _infallible = writeln!(text, "{what:<11} {said}");
    };
    line(
        "Packet",
        &format!(
            "{} from {} to {}, of {} at {}",
            packet.protocol, packet.from, packet.to, packet.program, trace.host_ifname
        ),
    );
    for step in &trace.steps {
        line(&format!("  {}", step.what), &step.found);
    }
    line("Verdict", &verdict(&trace.verdict));
    if let Some(stack) = &trace.stack {
        kernel(&mut line, stack);
    }
    if let Some(source) = &trace.source {
        line("Source", &format!("{source} is what the destination sees"));
    }
    let counts = trace.counts.iter();
    let counts: Vec<String> = counts
        .map(|count| match &count.pod {
            Some(pod) => format!("pod {pod} {}", count.path),
            None => format!("a pod that is gone {}", count.path),
        })
        .collect();
    if !counts.is_empty() {
        line("Counted", &counts.join(", "));
    }
    if trace.kernel.agrees {
        line("Confirmed", "the program in the kernel decides the same");
    }
    for warning in &trace.warnings {
        line("WARNING", warning);
    }
    text
}

fn verdict(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Pod { pod } => format!("straight into {pod}, past the kernel"),
        Outcome::Wire {
            interface,
            next_hop: Some(hop),
        } => format!("straight out of {interface} to {hop}, past the kernel's filters"),
        Outcome::Wire {
            interface,
            next_hop: None,
        } => format!(
            "straight out of {interface}, past the kernel's filters; its routes say where to"
        ),
        Outcome::Stack => "left to the kernel".to_owned(),
        Outcome::Reply => "answered on the spot".to_owned(),
        Outcome::Drop { reason, help } => format!("DROPPED, {reason}: {help}"),
    }
}

fn kernel(line: &mut impl FnMut(&str, &str), stack: &Stack) {
    let route = match &stack.route {
        Route::Node => "to the node itself".to_owned(),
        Route::Interface {
            interface,
            gateway: Some(gateway),
        } => format!("out of {interface} to {gateway}"),
        Route::Interface {
            interface,
            gateway: None,
        } => format!("out of {interface}"),
        Route::Nowhere { why } => format!("nowhere: {why}"),
    };
    line("Kernel", &format!("routes it {route}"));
    match stack.masquerade {
        Some(true) => line(
            "",
            "table azure-vnet gives it the node's address and a port from 61000 on",
        ),
        Some(false) => {}
        None => line("", "nft does not tell whether it is masqueraded"),
    }
    if !stack.translators.is_empty() {
        let chains = stack.translators.join(", ");
        line(
            "",
            &format!(
                "before that, rules of others may send it elsewhere, as kube-proxy's do: {chains}"
            ),
        );
    }
    if !stack.filters.is_empty() {
        let filters = stack.filters.join(", ");
        line(
            "",
            &format!("it is filtered, and may be dropped, by {filters}"),
        );
    }
}
