/* spreader: chooses the receive queue of the director for every TCP and UDP packet that enters the router from a host.
 *
 * veth pairs and bridges hand the queue of arrival on to the queue of departure, so what is written here decides where
 * the packet arrives. The choice is a function of both ports, equal for both directions of a connection; with -DCROSS=1
 * at the servers' side and 0 at the clients' side, replies arrive at another queue than requests, every time.
 * Attached with `tc filter ... bpf da`. Compiled with -DQUEUES=n -DCROSS=n.
 * Not here: IP options, extension headers and fragments, which take the first queue.
 */
#include <linux/bpf.h>
#include <linux/pkt_cls.h>

#define SECTION(name) __attribute__((section(name), used))

#define ETHERTYPE_IPV4 0x0800
#define ETHERTYPE_IPV6 0x86dd
#define PROTOCOL_TCP 6
#define PROTOCOL_UDP 17

/* Offsets from the start of the frame. Tags are in the metadata at this place, never in the bytes. */
#define OFFSET_IP 14
#define OFFSET_IPV4_PROTOCOL (OFFSET_IP + 9)
#define OFFSET_IPV6_PROTOCOL (OFFSET_IP + 6)

static long (*skb_load_bytes)(const void *skb, __u32 offset, void *to, __u32 len) = (void *)BPF_FUNC_skb_load_bytes;

SECTION("enter") int choose_queue(struct __sk_buff *skb)
{
	__u32 offset_protocol, offset_ports, sum;
	__u8 protocol, ports[4];

	switch (__builtin_bswap16(skb->protocol)) {
	case ETHERTYPE_IPV4:
		offset_protocol = OFFSET_IPV4_PROTOCOL;
		offset_ports = OFFSET_IP + 20;
		break;
	case ETHERTYPE_IPV6:
		offset_protocol = OFFSET_IPV6_PROTOCOL;
		offset_ports = OFFSET_IP + 40;
		break;
	default:
		return TC_ACT_OK;
	}
	if (skb_load_bytes(skb, offset_protocol, &protocol, sizeof(protocol)))
		return TC_ACT_OK;
	if (protocol != PROTOCOL_TCP && protocol != PROTOCOL_UDP)
		return TC_ACT_OK;
	if (skb_load_bytes(skb, offset_ports, ports, sizeof(ports)))
		return TC_ACT_OK;
	/* The kernel gives clients every other port, so the lowest bit says nothing. */
	sum = ((ports[0] << 8) + ports[1] + (ports[2] << 8) + ports[3]) >> 1;
	/* A recorded queue is stored plus one. */
	skb->queue_mapping = 1 + (sum + CROSS) % QUEUES;
	return TC_ACT_OK;
}

char terms[] SECTION("license") = "GPL";
