/* relayd/state/witness.c - remembers who died while it worked on the store. */
#include "relayd/state/witness.h"

#include <fcntl.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define PAGE_BYTES 4096
#define PLACES     256 /* more processes than that go without */

struct witness_page {
	_Atomic unsigned deaths;
	atomic_bool at_work[PLACES];
};

_Static_assert(sizeof(struct witness_page) <= PAGE_BYTES, "one page");

/* A lock on the byte of a place; what a process holds goes with it. */
static bool
lock_place(int fd, size_t place, short type)
{
	struct flock lock = {
		.l_type = type, .l_whence = SEEK_SET, .l_start = (off_t)(1 + place), .l_len = 1
	};

	return fcntl(fd, F_OFD_SETLK, &lock) == 0;
}

/* Writes what is missing, so that a full disk is an error here and no signal later. */
static bool
make_room(int fd)
{
	static const char zeros[PAGE_BYTES];
	struct stat sb;
	size_t missing;

	if (fstat(fd, &sb) < 0)
		return false;
	missing = sb.st_size < PAGE_BYTES ? (size_t)(PAGE_BYTES - sb.st_size) : 0;
	return missing == 0 || pwrite(fd, zeros, missing, sb.st_size) == (ssize_t)missing;
}

/* Nobody is there any more: it was at work when it died. */
static void
bury(struct witness_page *page, size_t place)
{
	if (atomic_exchange(&page->at_work[place], false))
		atomic_fetch_add(&page->deaths, 1);
}

void
witness_open(struct witness *w, int fd)
{
	void *page = MAP_FAILED;
	bool placed = false;

	*w = (struct witness){ .page = NULL };
	if (make_room(fd))
		page = mmap(NULL, PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (page == MAP_FAILED)
		return;
	w->page = page;
	for (size_t i = 0; i < PLACES; i++) {
		if (!lock_place(fd, i, F_WRLCK))
			continue; /* somebody's, who lives */
		bury(w->page, i);
		if (placed)
			(void)lock_place(fd, i, F_UNLCK); /* cannot fail */
		else
			w->place = i;
		placed = true;
	}
	if (!placed)
		witness_close(w);
}

void
witness_close(struct witness *w)
{
	if (w->page != NULL)
		(void)munmap(w->page, PAGE_BYTES); /* it is mapped */
	w->page = NULL;
}

bool
witness_doubts(struct witness *w)
{
	return w->page != NULL && atomic_load(&w->page->deaths) >= WITNESS_DEATHS &&
	       atomic_exchange(&w->page->deaths, 0) >= WITNESS_DEATHS;
}

void
witness_forget(struct witness *w)
{
	if (w->page != NULL)
		atomic_store(&w->page->deaths, 0);
}

void
witness_enter(struct witness *w)
{
	if (w->page != NULL)
		atomic_store(&w->page->at_work[w->place], true);
}

void
witness_leave(struct witness *w)
{
	if (w->page != NULL)
		atomic_store(&w->page->at_work[w->place], false);
}
