//! Whose programs see pods' packets before ours have checked them?

use hooks::{Hook, Look};

use crate::daemon::Daemon;
use crate::nic::{Names, is_host_veth};
use crate::stack::Known;
use crate::touched::Touched;
use crate::trouble::Topic;

impl Daemon {
    /// Others' programs that see pods' packets before we have checked them. Filters are announced; TCX's programs are not.
    pub(crate) fn look_for_strangers(&self, touched: &Touched, pods: &[Known]) {
        let before = self.strange.take();
        let (mut found, mut is_unsure) = (Vec::new(), false);
        let names = Names::open();
        // Without ours there is no order: that is another trouble.
        let look = Look::open(&self.pins, &[Hook::FROM_POD, Hook::FROM_WIRE]);
        let on_pods = pods.iter().map(|(_, pod)| pod.ifindex.get());
        for ifindex in on_pods.chain([self.node.borrow().nic.nic_ifindex]) {
            let suspect = touched.all
                || touched.links.contains(&ifindex)
                || before.contains(&ifindex)
                || hooks::has_tcx(ifindex);
            let Some(name) = suspect.then(|| names.of(ifindex)).flatten() else {
                continue;
            };
            let hook = if is_host_veth(&name) {
                Hook::FROM_POD
            } else {
                Hook::FROM_WIRE
            };
            let looked = look.as_ref().map(|look| look.ahead(hook, ifindex));
            match looked.ok().and_then(Result::ok) {
                Some(ahead) if ahead.is_empty() => {}
                Some(ahead) => {
                    self.strange.borrow_mut().insert(ifindex);
                    found.push(format!("{ahead:?} on {name}"));
                }
                // Who was there may still be.
                None if before.contains(&ifindex) => {
                    self.strange.borrow_mut().insert(ifindex);
                    is_unsure = true;
                }
                None => {}
            }
        }
        if is_unsure && found.is_empty() {
            return;
        }
        let wrong = (!found.is_empty()).then(|| {
            format!(
                "programs of others come before ours (ids {}): what they let pass by themselves is not checked; see `bpftool net`",
                found.join(", ")
            )
        });
        self.judge(Topic::Strangers, wrong);
    }
}
