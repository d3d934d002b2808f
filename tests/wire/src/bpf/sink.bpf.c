/* sink: the end of the way. Counts and drops what arrives for one port, before the host's network stack sees it.
 *
 * At the ingress hook of traffic control and not as XDP: a veth device with an XDP program copies every packet that came
 * as a socket buffer, and that copy would be charged to the sender that is measured. What is not for the port goes on to
 * the host. Packets inside of an IP-in-IP tunnel are looked at, too.
 */
#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_helpers.h>

#define ETH_LEN 14
#define IP_LEN 20
#define IP_PROTOCOL 9
#define IPIP 4
#define TCP 6
#define UDP 17

const volatile __u16 port = 0; /* network order */

struct counts {
	__u64 packets;
	__u64 bytes;
	__u64 strange; /* for the port, but for another host's MAC */
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct counts);
} counts SEC(".maps");

SEC("tc")
int xvs_sink(struct __sk_buff *skb)
{
	__u32 zero = 0, at = ETH_LEN;
	struct counts *mine;
	__u8 header[IP_LEN + 4];

	if (skb->protocol != __builtin_bswap16(0x0800) || bpf_skb_load_bytes(skb, at, header, sizeof(header)))
		return TC_ACT_OK;
	if (header[IP_PROTOCOL] == IPIP) {
		at += IP_LEN;
		if (bpf_skb_load_bytes(skb, at, header, sizeof(header)))
			return TC_ACT_OK;
	}
	if (header[IP_PROTOCOL] != UDP && header[IP_PROTOCOL] != TCP)
		return TC_ACT_OK;
	if (*(__u16 *)(header + IP_LEN + 2) != port)
		return TC_ACT_OK;
	mine = bpf_map_lookup_elem(&counts, &zero);
	if (!mine)
		return TC_ACT_OK;
	mine->packets++;
	mine->bytes += skb->len;
	mine->strange += skb->pkt_type != 0; /* PACKET_HOST */
	return TC_ACT_SHOT;
}

char LICENSE[] SEC("license") = "GPL";
