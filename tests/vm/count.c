/* A plugin of qemu that counts the instructions which each processor of the virtual machine executes, by their place.
 *
 * The counts lie in a file that is shared with whoever reads it: a record for each translated block, which is the
 * address of its first instruction, how many it has, and how often each processor entered it. A processor writes its
 * own counts alone, so nothing is lost and nothing is locked. A block that is left early by a fault counts whole.
 *
 * qemu's header is not packaged; what is declared here is version 4 of its interface (docs: "QEMU TCG Plugins").
 */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))
#define BLOCKS (1u << 20)
#define PROCESSORS 2

struct qemu_plugin_tb;
void qemu_plugin_register_vcpu_tb_trans_cb(uint64_t id, void (*translated)(uint64_t, struct qemu_plugin_tb *));
void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb *, void (*entered)(unsigned, void *), int flags, void *);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
uint64_t qemu_plugin_tb_vaddr(const struct qemu_plugin_tb *);

EXPORT int qemu_plugin_version = 4;

/* Known to xtask/src/vm/counts.rs, too. */
struct block {
	uint64_t address;
	uint64_t instructions;
	uint64_t entered[PROCESSORS];
};

static struct block *blocks;
static uint32_t used;

static void entered(unsigned processor, void *data)
{
	((struct block *)data)->entered[processor]++;
}

static void translated(uint64_t id, struct qemu_plugin_tb *tb)
{
	uint32_t index = __atomic_fetch_add(&used, 1, __ATOMIC_RELAXED);

	(void)id;
	if (index >= BLOCKS) {
		fprintf(stderr, "count: more than %u translated blocks\n", BLOCKS);
		abort();
	}
	blocks[index].address = qemu_plugin_tb_vaddr(tb);
	blocks[index].instructions = qemu_plugin_tb_n_insns(tb);
	qemu_plugin_register_vcpu_tb_exec_cb(tb, entered, 0, &blocks[index]);
}

EXPORT int qemu_plugin_install(uint64_t id, const void *info, int argc, char **argv)
{
	const size_t size = sizeof(struct block) * BLOCKS;
	int file;

	(void)info;
	if (argc != 1 || strncmp(argv[0], "counts=", 7)) {
		fprintf(stderr, "count: wants counts=FILE\n");
		return 1;
	}
	file = open(argv[0] + 7, O_RDWR | O_CREAT | O_TRUNC, 0600);
	if (file < 0 || ftruncate(file, size)) {
		perror("count: the file of counts");
		return 1;
	}
	blocks = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
	if (blocks == MAP_FAILED) {
		perror("count: the file of counts");
		return 1;
	}
	qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
	return 0;
}
