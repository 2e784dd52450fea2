/* tests/fuzz/replay.c - feeds the seeds in the folders or files given to a fuzz target, once
 * each. */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static size_t replayed;

static void
replay_file(const char *path)
{
	FILE *f = fopen(path, "rb");
	struct stat st;
	uint8_t *bytes;
	size_t n;

	if (f == NULL || fstat(fileno(f), &st) < 0 ||
	    (bytes = malloc((size_t)st.st_size + 1)) == NULL) {
		perror(path);
		exit(EXIT_FAILURE);
	}
	n = fread(bytes, 1, (size_t)st.st_size, f);
	(void)fclose(f);	/* opened for reading: nothing to lose */
	LLVMFuzzerTestOneInput(bytes, n);
	free(bytes);
	replayed++;
}

static void
replay(const char *path)
{
	struct dirent *entry;
	DIR *dir = opendir(path);
	char name[4096];

	if (dir == NULL) {
		replay_file(path);
		return;
	}
	while ((entry = readdir(dir)) != NULL) {
		if (entry->d_name[0] == '.')
			continue;
		(void)snprintf(name, sizeof(name), "%s/%s", path, entry->d_name);
		replay_file(name);
	}
	(void)closedir(dir);	/* read only */
}

int
main(int argc, char **argv)
{
	for (int i = 1; i < argc; i++)
		replay(argv[i]);
	printf("%zu seeds replayed\n", replayed);
	return replayed > 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
