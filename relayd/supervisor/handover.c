/* relayd/supervisor/handover.c - what the supervisor hands a role process, by descriptor number. */
#include "relayd/supervisor/handover.h"

#include "relayd/core/buf.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static int
write_all(int fd, struct slice bytes)
{
	while (bytes.len > 0) {
		ssize_t n = write(fd, bytes.p, bytes.len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return -1;
		bytes = slice_drop(bytes, (size_t)n);
	}
	return 0;
}

int
handover_memfd(const char *name, struct slice bytes, struct err *err)
{
	int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);

	if (fd < 0)
		return err_sys(err, errno, "memfd %s", name);
	if (write_all(fd, bytes) < 0 ||
	    fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0) {
		err_sys(err, errno, "memfd %s", name);
		(void)close(fd);	/* given up */
		return -1;
	}
	return fd;
}

struct slice
handover_map(int fd, struct err *err)
{
	struct slice none = { NULL, 0 };
	struct stat st;
	void *p;

	if (fstat(fd, &st) < 0 || st.st_size <= 0) {
		err_sys(err, errno, "handed-over file");
		return none;
	}
	p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	if (p == MAP_FAILED) {
		err_sys(err, errno, "map handed-over file");
		return none;
	}
	return slice_of(p, (size_t)st.st_size);
}

int
handover_encode(const struct handover *ho, struct buf *out, struct err *err)
{
	json_t *list = json_array();
	json_t *all = json_pack("{s:s, s:i, s:I, s:o}", "config", ho->config_path, "page",
	    (int)ho->page, "review_uid", (json_int_t)ho->review_uid, "listeners", list);
	char *text;

	for (size_t i = 0; i < ho->n_listeners && all != NULL; i++) {
		const struct role_listener *l = &ho->listeners[i];

		if (json_array_append_new(list,
			json_pack("{s:i, s:i, s:b, s:s, s:s}", "kind", (int)l->kind, "fd", l->fd,
			    "first", (int)l->first, "name", l->name, "address", l->address)) < 0) {
			json_decref(all);
			all = NULL;
		}
	}
	text = all != NULL ? json_dumps(all, JSON_COMPACT) : NULL;
	json_decref(all);
	if (text == NULL)
		return err_set(err, ERR_NOMEM, "no memory for a manifest");
	buf_puts(out, text);
	free(text);
	return out->overflow ? err_set(err, ERR_LIMIT, "too many listeners") : 0;
}

static int
decode_listener(const json_t *item, struct role_listener *l)
{
	const char *name, *address;
	int kind, first = 0; /* which an older supervisor does not say */

	if (json_unpack((json_t *)(uintptr_t)item, "{s:i, s:i, s?b, s:s, s:s}", "kind", &kind, "fd",
		&l->fd, "first", &first, "name", &name, "address", &address) < 0)
		return -1;
	l->first = first != 0;
	l->kind = (enum role_listener_kind)kind; /* written by ourselves */
	l->name = strdup(name);
	l->address = strdup(address);
	return l->name != NULL && l->address != NULL ? 0 : -1;
}

static int
decode(const json_t *all, struct handover *ho)
{
	json_t *list = NULL, *item;
	const char *path;
	json_int_t uid;
	int page;
	size_t i;

	if (json_unpack((json_t *)(uintptr_t)all, "{s:s, s:i, s:I, s:o}", "config", &path, "page",
		&page, "review_uid", &uid, "listeners", &list) < 0 ||
	    json_array_size(list) > HANDOVER_LISTENERS_MAX)
		return -1;
	ho->page = (unsigned)page;
	ho->review_uid = (uid_t)uid;
	ho->config_path = strdup(path);
	json_array_foreach (list, i, item) {
		if (decode_listener(item, &ho->listeners[ho->n_listeners++]) < 0)
			return -1;
	}
	return ho->config_path != NULL ? 0 : -1;
}

int
handover_decode(struct slice text, struct handover *ho, struct err *err)
{
	json_error_t why;
	json_t *all = json_loadb(text.p, text.len, 0, &why);
	int rc;

	*ho = (struct handover){ 0 };
	rc = all != NULL ? decode(all, ho) : -1;
	json_decref(all);
	if (rc == 0)
		return 0;
	handover_fini(ho);
	return err_set(err, ERR_FORMAT, "the manifest of the supervisor is not whole");
}

void
handover_fini(struct handover *ho)
{
	for (size_t i = 0; i < ho->n_listeners; i++) {
		free((void *)(uintptr_t)ho->listeners[i].name);
		free((void *)(uintptr_t)ho->listeners[i].address);
	}
	free((void *)(uintptr_t)ho->config_path);
	*ho = (struct handover){ 0 };
}

int
handover_send(int sock, const char *text, int fd, struct err *err)
{
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(sizeof(int))];
	} control = { 0 };
	struct iovec iov = { .iov_base = (void *)(uintptr_t)text, .iov_len = strlen(text) };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };

	if (fd >= 0) {
		struct cmsghdr *c = &control.align;

		msg.msg_control = &control;
		msg.msg_controllen = sizeof(control);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(c), &fd, sizeof(fd));
	}
	if (sendmsg(sock, &msg, MSG_NOSIGNAL) < 0)
		return err_sys(err, errno, "send %s", text);
	return 0;
}

ssize_t
handover_receive(int sock, char text[static HANDOVER_PACKET_BYTES], int *fd)
{
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(sizeof(int))];
	} control = { 0 };
	struct iovec iov = { .iov_base = text, .iov_len = HANDOVER_PACKET_BYTES - 1 };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control,
		.msg_controllen = sizeof(control) };
	ssize_t n = recvmsg(sock, &msg, MSG_CMSG_CLOEXEC);
	const struct cmsghdr *c = n > 0 ? CMSG_FIRSTHDR(&msg) : NULL;

	*fd = -1;
	if (c != NULL && c->cmsg_type == SCM_RIGHTS)
		memcpy(fd, CMSG_DATA(c), sizeof(*fd));
	text[n > 0 ? n : 0] = '\0';
	return n;
}
