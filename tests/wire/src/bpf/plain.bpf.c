/* plain: IPv4 to the AF_XDP socket of the queue, everything else to the kernel. The least that such a program can do. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#define ETHERTYPE_AT 12
#define ETHERTYPE_IPV4 0x0800

struct {
	__uint(type, BPF_MAP_TYPE_XSKMAP);
	__uint(max_entries, 64);
	__type(key, __u32);
	__type(value, __u32);
} xsks SEC(".maps");

SEC("xdp")
int xvs_plain(struct xdp_md *ctx)
{
	__u8 *frame = (void *)(long)ctx->data;

	if (frame + ETHERTYPE_AT + 2 > (__u8 *)(long)ctx->data_end)
		return XDP_PASS;
	if (*(__u16 *)(frame + ETHERTYPE_AT) != __builtin_bswap16(ETHERTYPE_IPV4))
		return XDP_PASS;
	return bpf_redirect_map(&xsks, ctx->rx_queue_index, XDP_PASS);
}

/* For the generator's own cost: all is dropped before anybody looks at it. */
SEC("xdp")
int xvs_blackhole(struct xdp_md *ctx)
{
	(void)ctx;
	return XDP_DROP;
}

char LICENSE[] SEC("license") = "GPL";
