/* tagger: writes a VLAN tag on all that leaves an interface and takes it from all that enters.
 *
 * It stands in for a VLAN sub-interface on kernels that were built without them: the host above sees untagged frames,
 * the wire sees tagged ones. Attached with `tc filter ... bpf da`. Compiled with -DVLAN=id.
 * Not here: several VLANs on one interface.
 */
#include <linux/bpf.h>
#include <linux/pkt_cls.h>

#define SECTION(name) __attribute__((section(name), used))
#define TPID_8021Q_BIG_ENDIAN 0x0081

/* Numbers of the kernel's stable helper interface (enum bpf_func_id). */
static long (*skb_vlan_push)(struct __sk_buff *skb, __u16 protocol, __u16 tci) = (void *)BPF_FUNC_skb_vlan_push;
static long (*skb_vlan_pop)(struct __sk_buff *skb) = (void *)BPF_FUNC_skb_vlan_pop;

SECTION("leave") int tag_what_leaves(struct __sk_buff *skb)
{
	return skb_vlan_push(skb, TPID_8021Q_BIG_ENDIAN, VLAN) ? TC_ACT_SHOT : TC_ACT_OK;
}

SECTION("enter") int untag_what_enters(struct __sk_buff *skb)
{
	/* What carries no tag or another one is not of this VLAN. */
	if (!skb->vlan_present || (skb->vlan_tci & 0xfff) != VLAN)
		return TC_ACT_SHOT;
	return skb_vlan_pop(skb) ? TC_ACT_SHOT : TC_ACT_OK;
}

char terms[] SECTION("license") = "GPL";
