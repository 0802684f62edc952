/* libchrony from C, without any deadline, for bench.py.

   bench tracking|sources HOST PORT SECONDS   repeats a report for SECONDS
   bench sweep HOSTS PORT                     asks the daemons of bench_daemons.py

   The prototypes stand here because no header comes with the wheel that the
   library may be from. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef struct chrony_session_t session;
enum { UINTEGER = 1, INTEGER, FLOAT, TIMESPEC, STRING };

static int (*open_socket)(const char *);
static void (*close_socket)(int);
static int (*init_session)(session **, int);
static void (*deinit_session)(session *);
static bool (*needs_response)(session *);
static int (*process_response)(session *);
static int (*request_number)(session *, const char *);
static int (*get_number)(session *);
static int (*request_record)(session *, const char *, int);
static int (*get_number_fields)(session *);
static int (*get_type)(session *, int);
static uint64_t (*get_uinteger)(session *, int);
static int64_t (*get_integer)(session *, int);
static double (*get_float)(session *, int);
static struct timespec (*get_timespec)(session *, int);
static const char *(*get_string)(session *, int);

static const struct {
  const char *name;
  void *function;
} symbols[] = {
    {"chrony_open_socket", &open_socket},
    {"chrony_close_socket", &close_socket},
    {"chrony_init_session", &init_session},
    {"chrony_deinit_session", &deinit_session},
    {"chrony_needs_response", &needs_response},
    {"chrony_process_response", &process_response},
    {"chrony_request_report_number_records", &request_number},
    {"chrony_get_report_number_records", &get_number},
    {"chrony_request_record", &request_record},
    {"chrony_get_record_number_fields", &get_number_fields},
    {"chrony_get_field_type", &get_type},
    {"chrony_get_field_uinteger", &get_uinteger},
    {"chrony_get_field_integer", &get_integer},
    {"chrony_get_field_float", &get_float},
    {"chrony_get_field_timespec", &get_timespec},
    {"chrony_get_field_string", &get_string},
};

static char address[64];
static const char *text;
static volatile double sink;

static void fail(const char *what) {
  fprintf(stderr, "%s\n", what);
  exit(1);
}

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec + t.tv_nsec / 1e9;
}

static void load(void) {
  const char *path = getenv("PYCHRONY_LIBCHRONY");
  void *library = dlopen(path ? path : "libchrony.so.0", RTLD_NOW);
  if (!library)
    fail(dlerror());
  for (size_t i = 0; i < sizeof symbols / sizeof *symbols; i++)
    if (!(*(void **)symbols[i].function = dlsym(library, symbols[i].name)))
      fail(dlerror());
}

static int start(session **s) {
  int fd = open_socket(address);
  if (fd < 0 || init_session(s, fd))
    fail("cannot open a session");
  return fd;
}

static void finish(session *s, int error) {
  while (!error && needs_response(s))
    error = process_response(s);
  if (error)
    fail("no response");
}

/* Reads every field. The only text is the address, which can be NULL. */
static void read_fields(session *s) {
  double sum = 0;
  for (int i = 0, n = get_number_fields(s); i < n; i++)
    switch (get_type(s, i)) {
    case UINTEGER:
      sum += get_uinteger(s, i);
      break;
    case INTEGER:
      sum += get_integer(s, i);
      break;
    case FLOAT:
      sum += get_float(s, i);
      break;
    case TIMESPEC:
      sum += get_timespec(s, i).tv_nsec;
      break;
    case STRING:
      text = get_string(s, i);
    }
  sink = sum;
}

static void tracking(session *s) {
  finish(s, request_record(s, "tracking", 0));
  read_fields(s);
}

static void sources(session *s) {
  finish(s, request_number(s, "sources"));
  for (int i = 0, n = get_number(s); i < n; i++) {
    finish(s, request_record(s, "sources", i));
    read_fields(s);
  }
}

static void repeat(void (*report)(session *), int batch, double seconds) {
  session *s;
  const char *separator = "";
  start(&s);
  printf("{\"times\": [");
  for (double end = now() + seconds, begin = now(); begin < end || !*separator;) {
    for (int i = 0; i < batch; i++)
      report(s);
    double done = now();
    printf("%s%.9f", separator, (done - begin) / batch);
    separator = ", ";
    begin = done;
  }
  printf("]}\n");
}

static void sweep(int hosts, const char *port) {
  int wrong = 0;
  double begin = now();
  for (int i = 0; i < hosts; i++) {
    session *s;
    char host[32];
    snprintf(host, sizeof host, "127.1.%d.%d", i >> 8, i & 255);
    snprintf(address, sizeof address, "%s:%s", host, port);
    int fd = start(&s);
    tracking(s);
    wrong += !text || strcmp(text, host);
    deinit_session(s);
    close_socket(fd);
  }
  printf("{\"times\": [%.9f], \"wrong\": %d}\n", now() - begin, wrong);
}

int main(int argc, char **argv) {
  if (argc < 4)
    fail("too few arguments");
  load();
  double seconds = argc > 4 ? atof(argv[4]) : 0;
  snprintf(address, sizeof address, "%s:%s", argv[2], argv[3]);
  if (!strcmp(argv[1], "sweep"))
    sweep(atoi(argv[2]), argv[3]);
  else if (!strcmp(argv[1], "sources"))
    repeat(sources, 1, seconds);
  else
    repeat(tracking, 100, seconds);
  return 0;
}
