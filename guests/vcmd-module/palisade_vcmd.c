// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * Takes PASIDs from the kernel's own allocator until it has no more, keeps
 * them while loaded, and gives them all back when it is unloaded.
 *
 * On Linux 5.8 to 6.3, under a unit with virtual commands, each of these goes to
 * the host. What happens is told in the kernel's log, one line each.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/ioasid.h>
#include <linux/module.h>
#include <linux/moduleparam.h>
#include <linux/slab.h>

#define SMALLEST 1
#define LARGEST ((1u << 20) - 1)

static unsigned int limit = 8192;
module_param(limit, uint, 0444);
MODULE_PARM_DESC(limit, "stop after so many PASIDs even if there are more");

static DECLARE_IOASID_SET(palisade_set);
static ioasid_t *held;
static unsigned int count;

/* The log has room for some thousand lines only: neighbours share one. */
static void tell(unsigned int from, unsigned int to)
{
	unsigned int i, first = from;

	for (i = from + 1; i <= to; i++) {
		if (i < to && held[i] == held[i - 1] + 1)
			continue;
		pr_info("allocated %u-%u\n", held[first], held[i - 1]);
		first = i;
	}
}

static int __init palisade_vcmd_init(void)
{
	held = kvcalloc(limit, sizeof(*held), GFP_KERNEL);
	if (!held)
		return -ENOMEM;

	while (count < limit) {
		/*
		 * No data: a PASID that has some counts as in use, and
		 * the kernel would not ask the host to free it.
		 */
		ioasid_t id = ioasid_alloc(&palisade_set, SMALLEST, LARGEST, NULL);

		if (id == INVALID_IOASID)
			break;
		held[count++] = id;
	}
	if (count)
		tell(0, count);
	pr_info("%s after %u\n", count < limit ? "refused" : "limit reached", count);
	return 0;
}

static void __exit palisade_vcmd_exit(void)
{
	unsigned int i;

	for (i = 0; i < count; i++)
		ioasid_free(held[i]);
	pr_info("freed %u\n", count);
	kvfree(held);
}

module_init(palisade_vcmd_init);
module_exit(palisade_vcmd_exit);

MODULE_DESCRIPTION("Allocates and frees PASIDs, to test who hands them out");
MODULE_LICENSE("Dual MIT/GPL");
