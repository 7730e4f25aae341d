//! The loader: owns programs and maps, attaches to the NIC, keeps the maps true.
//!
//! | Question | Module |
//! |---|---|
//! | In what order does the daemon start, and what does it answer? | [`daemon`] |
//! | What does it do for ever after? | `tasks` |
//! | What may be configured? | [`config`] |
//! | What is in force, and what was refused? | [`configuration`] |
//! | What do ip-masq-agent's files say? | [`masq`] |
//! | How is a configuration file read? | [`document`] |
//! | Which ports may SNAT use? | [`ports`] |
//! | What follows when the configuration or the node changes? | `follow` |
//! | When has a configuration file changed? | `files` |
//! | How is another program run that may hang? | `bounded` |
//! | When has the node changed? | `netlink` |
//! | What has somebody done to what we have made? | `touched` |
//! | When is what repaired? | `repair` |
//! | What does the kernel's own way to a pod need? | `stack`, `sysctls`, `devconf` |
//! | What was in the files of living attachments? | `keepsakes` |
//! | What is wrong and cannot be mended from here? | `trouble` |
//! | Whose programs see pods' packets before ours? | `strangers` |
//! | How do programs and maps get into the kernel, and stay there? | [`object`] |
//! | Which pinned maps are used again, carried over, refused? | `layouts` |
//! | How do entries of another build's maps get into ours under traffic? | [`carry`] |
//! | Which NIC is ours? | [`nic`] |
//! | Which addresses may pods get? | [`pools`]: [`wireserver`], else [`imds`] |
//! | What do Azure's tools read? | `azure_state` |
//! | What happens to a packet because of its destination? | [`classes`] |
//! | How do classes change without a wrong moment? | `transition` |
//! | How do packets between pods of this node get to the fabric? | [`tunnel`] |
//! | Which addresses do conflists route via the host? | [`via_host`] |
//! | What does the kernel do without our programs? | [`fallback`] |
//! | How does a pod get into the maps and out? | [`registry`] |
//! | Which host veths of pods exist? | [`veths`] |
//! | Who else filters what pods send through the node? | [`foreign`] |
//! | What else is written into the maps? | `settings` |
//! | How are records, maps and programs brought together? | [`reconcile`] |
//! | How does a host veth go away without anybody waiting? | [`links`] |
//! | What does `xdp_guard` do, and what does it cost? | `guard`, `offloads` |
//! | How much went which way, over all pods that ever were? | `traffic` |
//! | What do metrics say, and who may read them? | `metrics`, `web` |
//! | Would an ADD work, and does the loader's loop turn? | `ready` |
//! | How often has what was there been put back? | [`repairs`] |
//! | Which flows does the kernel translate already? | [`conntrack`] |
//! | When do table entries die? | [`gc`] |
//! | Who may ask, and how? | [`server`] |
//! | Which addresses has nobody that lives? | [`leaks`], if `sight` allows; freed by [`ipam`], twice found by `reclaim` |
//! | Why is there one loader only? | `lock` |
//! | What does `vnetctl status` show? | [`status`] |
//! | How is a plug-in called? | `plugin` |
//! | Is a conflist right? | [`validate`] |
//! | When does the runtime get its conflist? | `conflist` |
//! | How are ages and reasons said to people? | `words` |
//! | What may an operator ask? | [`vnetctl`] |
//! | What would happen to a packet, and why? | [`trace`] |
//! | What happens to packets as we look on? | [`events`] |
//! | Which pod is meant? | [`podname`] |

mod alive;
mod azure_state;
pub mod bounded;
pub mod carry;
pub mod census;
pub mod classes;
pub mod config;
pub mod configuration;
mod conflist;
pub mod conntrack;
pub mod daemon;
mod devconf;
pub mod document;
mod entries;
pub mod events;
pub mod fallback;
mod fights;
mod files;
mod follow;
pub mod foreign;
pub mod gc;
mod guard;
pub mod imds;
pub mod ipam;
mod keep_nft;
mod keepsakes;
mod layouts;
pub mod leaks;
pub mod links;
mod lock;
pub mod masq;
mod metrics;
mod netlink;
pub mod nic;
pub mod object;
mod offloads;
mod plugin;
pub mod podname;
pub mod pools;
pub mod ports;
mod ready;
mod reclaim;
pub mod reconcile;
pub mod registry;
mod repair;
pub mod repairs;
pub mod report;
pub mod routes;
pub mod server;
mod settings;
pub mod sight;
mod signals;
mod stack;
pub mod status;
mod strangers;
pub mod sysctls;
mod tasks;
mod touched;
pub mod trace;
mod traffic;
mod transition;
mod trouble;
pub mod tunnel;
pub mod validate;
pub mod veths;
pub mod via_host;
pub mod vnetctl;
mod web;
pub mod wireserver;
mod words;
