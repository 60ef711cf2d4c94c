/* A job that tests the transport alone, started by tests/faults/test_transport.py: transport_main WHAT [SEED].
 *
 * With a seed (not 0) the messages are delayed and mixed (chaos.h).
 *
 * Every rank checks what it receives and whether each buffer came back, and rank 0 prints "fine" after all agreed.
 */
#define _GNU_SOURCE
#include "mpi_process.h"
#include "transport.h"

#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define REQUIRE(condition)                                                                       \
    do {                                                                                         \
        if (!(condition)) {                                                                      \
            fprintf(stderr, "%s:%d: rank %d: %s\n", __FILE__, __LINE__, world_rank, #condition); \
            MPI_Abort(MPI_COMM_WORLD, 4);                                                        \
        }                                                                                        \
    } while (0)

static int world_rank, world_size;
static uint64_t seed_of_chaos, overtakers;

/* ---- buffers that are counted ---------------------------------------------------------------------------------- */

struct pool {
    struct transport *transport;
    long out;
    uint64_t bytes_out;
};

static void *take(void *context, uint64_t bytes)
{
    struct pool *pool = context;
    pool->out++;
    pool->bytes_out += bytes;
    return malloc(bytes ? bytes : 1);
}

static void give(void *context, void *buffer, uint64_t bytes)
{
    struct pool *pool = context;
    pool->out--;
    pool->bytes_out -= bytes;
    memset(buffer, 0xee, bytes);
    free(buffer);
}

static void broken(void *context, const char *text)
{
    (void)context;
    fprintf(stderr, "broken: %s\n", text);
    mpi_process_abort(3);
}

/* ---- parts: what is sent from one place and received in another ------------------------------------------------- */

struct load {
    uint64_t bytes; /* of all parts */
    int count;
    struct transport_part parts[TRANSPORT_PARTS_MAX];
};

struct head {
    uint64_t number, bytes;
    int count;
    uint32_t part_bytes[TRANSPORT_PARTS_MAX];
};

static struct load *load_new(struct pool *pool, const struct head *head)
{
    struct load *load = take(pool, sizeof *load);
    *load = (struct load){.count = head->count};
    for (int i = 0; i < head->count; i++)
        load->parts[i] = (struct transport_part){take(pool, head->part_bytes[i]), head->part_bytes[i]};
    return load;
}

static void load_free(struct pool *pool, struct load *load)
{
    for (int i = 0; i < load->count; i++)
        give(pool, load->parts[i].at, load->parts[i].bytes);
    give(pool, load, sizeof *load);
}

static void sent(void *context, void *token)
{
    load_free(context, token);
}

static int place(void *context, int source, void *buffer, uint64_t bytes, struct transport_part *parts, void **token)
{
    struct head head;
    (void)source;
    REQUIRE(bytes >= sizeof head);
    memcpy(&head, buffer, sizeof head);
    REQUIRE(head.count > 0 && head.count <= TRANSPORT_PARTS_MAX);
    struct load *load = load_new(context, &head);
    memcpy(parts, load->parts, sizeof load->parts);
    *token = load;
    return load->count;
}

static void open_on(MPI_Comm comm, struct pool *pool)
{
    struct transport_buffers buffers = {
        .context = pool, .take = take, .give = give, .broken = broken, .sent = sent, .place = place};
    char text[1024] = "";
    *pool = (struct pool){0};
    REQUIRE(transport_open(&pool->transport, &comm, &buffers, text, (int)sizeof text) == 0);
    int opened;
    while ((opened = transport_opened(pool->transport, text, (int)sizeof text)) == 0)
        ;
    REQUIRE(opened == 1);
    if (seed_of_chaos)
        REQUIRE(transport_start_chaos(pool->transport, seed_of_chaos) == 0);
}

static void close_and_check(struct pool *pool)
{
    transport_close(pool->transport);
    REQUIRE(pool->out == 0);
    REQUIRE(pool->bytes_out == 0);
}

/* ---- messages that are checked --------------------------------------------------------------------------------- */

/* Mostly small ones, some around the limits where an MPI changes its way of sending, few of a mebibyte. */
static uint64_t size_of(unsigned *seed)
{
    static const uint64_t edges[] = {sizeof(struct head), 4096, 8192, 65536};
    int kind = rand_r(seed) % 16;
    if (kind == 0)
        return (uint64_t)1 << 20;
    if (kind < 6)
        return edges[rand_r(seed) % 4] + (uint64_t)(rand_r(seed) % 64);
    return sizeof(struct head) + (uint64_t)(rand_r(seed) % 512);
}

static unsigned char fill_of(int sender, uint64_t number)
{
    return (unsigned char)((unsigned)sender * 37 + number * 11);
}

/* `seed`: of parts, which some messages have; NULL: none. */
static void send_number(struct pool *pool, int peer, uint64_t number, uint64_t bytes, unsigned *seed)
{
    uint64_t capacity = bytes + bytes % 100;
    unsigned char *buffer = take(pool, capacity), fill = fill_of(transport_rank(pool->transport), number);
    struct head head = {.number = number, .bytes = bytes};
    if (seed && rand_r(seed) % 3 == 0)
        head.count = 1 + rand_r(seed) % (rand_r(seed) % 2 ? 3 : TRANSPORT_PARTS_MAX);
    for (int i = 0; i < head.count; i++)
        head.part_bytes[i] = (uint32_t)size_of(seed) / (i < 3 ? 1 : 16) + 1;
    memset(buffer, fill, bytes);
    memcpy(buffer, &head, sizeof head);
    if (head.count == 0) {
        transport_send(pool->transport, peer, buffer, bytes, capacity);
        return;
    }
    struct load *load = load_new(pool, &head);
    for (int i = 0; i < load->count; i++)
        memset(load->parts[i].at, fill + i, load->parts[i].bytes);
    transport_send_parts(pool->transport, peer, buffer, bytes, capacity, load->parts, load->count, load);
}

static void check_load(const struct head *head, const struct load *load, unsigned char fill)
{
    REQUIRE(head->count == load->count);
    for (int i = 0; i < load->count; i++) {
        const unsigned char *at = load->parts[i].at;
        REQUIRE(load->parts[i].bytes == head->part_bytes[i]);
        for (uint64_t k = 0; k < load->parts[i].bytes; k++)
            REQUIRE(at[k] == (unsigned char)(fill + i));
    }
}

/* It is its sender's next message.  Chaos lets messages overtake each other, but not one with parts another one. */
static void check_turn(int sender, const struct head *head, uint64_t next)
{
    enum { SENDERS = 8, NUMBERS = 1024 };
    static bool come[SENDERS][NUMBERS];
    static uint64_t parts_from[SENDERS];
    if (!seed_of_chaos) {
        REQUIRE(head->number == next);
        return;
    }
    REQUIRE(sender < SENDERS && head->number < NUMBERS && !come[sender][head->number]);
    come[sender][head->number] = true;
    overtakers += head->number > next;
    if (head->count == 0)
        return;
    REQUIRE(head->number >= parts_from[sender]);
    parts_from[sender] = head->number + 1;
}

/* Take one message, if there is one, and look at it. */
static bool receive_next(struct pool *pool, uint64_t *next)
{
    void *buffer, *token;
    uint64_t bytes;
    struct head head;
    int sender = transport_receive(pool->transport, &buffer, &bytes, &token);
    if (sender < 0)
        return false;
    memcpy(&head, buffer, sizeof head);
    check_turn(sender, &head, next[sender]);
    REQUIRE(head.bytes == bytes);
    for (uint64_t i = sizeof head; i < bytes; i++)
        REQUIRE(((unsigned char *)buffer)[i] == fill_of(sender, head.number));
    REQUIRE((head.count > 0) == (token != NULL));
    if (token) {
        check_load(&head, token, fill_of(sender, head.number));
        load_free(pool, token);
    }
    next[sender]++;
    give(pool, buffer, bytes);
    return true;
}

/* Everybody sends to everybody, in bursts, and receives when it likes. */
static void exchange(MPI_Comm comm, uint64_t messages)
{
    struct pool pool;
    open_on(comm, &pool);
    int rank = transport_rank(pool.transport), size = transport_size(pool.transport);
    unsigned seed = (unsigned)world_rank + 1;
    uint64_t *next = calloc((size_t)size, sizeof *next), *counts = calloc((size_t)size, sizeof *counts);
    uint64_t to_send = messages * (uint64_t)(size - 1), to_receive = to_send;
    while (to_send + to_receive > 0 || transport_pending(pool.transport) > 0) {
        int burst = rand_r(&seed) % 8;
        while (to_send > 0 && burst-- > 0) {
            int peer = rand_r(&seed) % size;
            if (peer == rank || counts[peer] == messages)
                continue;
            send_number(&pool, peer, counts[peer]++, size_of(&seed), &seed);
            to_send--;
        }
        for (int tries = rand_r(&seed) % 8; tries > 0; tries--)
            to_receive -= receive_next(&pool, next);
    }
    REQUIRE(size == 1 || (overtakers > 0) == (seed_of_chaos > 0));
    close_and_check(&pool);
    free(next);
    free(counts);
}

static void test_random(void)
{
    /* The user's own messages, with our tag, on the communicator that is duplicated, stay the user's. */
    int right = (world_rank + 1) % world_size, left = (world_rank + world_size - 1) % world_size, got = -1;
    MPI_Request request;
    MPI_Isend(&world_rank, 1, MPI_INT, right, 0, MPI_COMM_WORLD, &request);
    exchange(MPI_COMM_WORLD, 300);
    MPI_Recv(&got, 1, MPI_INT, left, 0, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
    MPI_Wait(&request, MPI_STATUS_IGNORE);
    REQUIRE(got == left);
}

static void test_part(void)
{
    MPI_Comm part;
    MPI_Comm_split(MPI_COMM_WORLD, world_rank == 0, -world_rank, &part);
    exchange(part, 50);
    MPI_Comm_free(&part);
}

/* More large sends than any list holds at first, before anybody receives: posting them returns at once. */
static void test_flood(void)
{
    enum { MESSAGES = 600, BYTES = 100000 };
    struct pool pool;
    unsigned seed = 1;
    uint64_t *next = calloc((size_t)world_size, sizeof *next);
    open_on(MPI_COMM_WORLD, &pool);
    if (world_rank == 0)
        for (uint64_t i = 0; i < MESSAGES; i++)
            send_number(&pool, world_size - 1, i, i % 3 ? BYTES : sizeof(struct head), i % 3 ? NULL : &seed);
    MPI_Barrier(MPI_COMM_WORLD);
    if (world_rank == world_size - 1)
        while (next[0] < MESSAGES)
            receive_next(&pool, next);
    while (transport_pending(pool.transport) > 0)
        receive_next(&pool, next);
    close_and_check(&pool);
    free(next);
}

/* Late messages that nobody wants any more keep nobody from closing. */
static void test_unreceived(void)
{
    struct pool pool;
    open_on(MPI_COMM_WORLD, &pool);
    for (uint64_t i = 0; i < 100; i++)
        for (int peer = 0; peer < world_size; peer++)
            if (peer != world_rank)
                send_number(&pool, peer, i, i % 2 ? 300000 : sizeof(struct head), NULL);
    close_and_check(&pool);
}

/* Rank 0 sends, and only then rank 1 does; still the second message comes first now and then. */
static void test_overtaking(void)
{
    enum { ROUNDS = 200 };
    struct pool pool;
    uint64_t next[3] = {0, 0, 0};
    int overtaken = 0;
    open_on(MPI_COMM_WORLD, &pool);
    for (uint64_t round = 0; round < ROUNDS; round++) {
        for (int sender = 0; sender < 2; sender++) {
            if (world_rank == sender)
                send_number(&pool, 2, round, sizeof(struct head), NULL);
            MPI_Barrier(MPI_COMM_WORLD);
        }
        while (world_rank == 2 && next[0] + next[1] < 2 * (round + 1)) {
            receive_next(&pool, next);
            overtaken += next[1] == round + 1 && next[0] == round;
        }
        while (world_rank < 2 && transport_pending(pool.transport) > 0)
            receive_next(&pool, next);
        MPI_Barrier(MPI_COMM_WORLD);
    }
    REQUIRE(world_rank != 2 || overtaken > 0);
    close_and_check(&pool);
}

static void test_collectives(void)
{
    struct pool pool;
    open_on(MPI_COMM_WORLD, &pool);
    REQUIRE(transport_rank(pool.transport) == world_rank);
    REQUIRE(transport_size(pool.transport) == world_size);
    uint64_t high = UINT64_MAX - 10 + (uint64_t)world_rank;
    REQUIRE(transport_agree_min(pool.transport, high) == UINT64_MAX - 10);
    REQUIRE(transport_agree_max(pool.transport, high) == UINT64_MAX - 10 + (uint64_t)world_size - 1);
    char mine[128], *all = calloc((size_t)world_size, sizeof mine);
    memset(mine, world_rank + 1, sizeof mine);
    transport_gather(pool.transport, mine, (int)sizeof mine, all);
    for (int i = 0; i < world_size; i++)
        REQUIRE(all[128 * i] == i + 1 && all[128 * i + 127] == i + 1);
    transport_broadcast(pool.transport, mine, (int)sizeof mine);
    REQUIRE(mine[0] == 1 && mine[127] == 1);
    free(all);
    close_and_check(&pool);
}

/* ---- what must fail -------------------------------------------------------------------------------------------- */

static void print_refusal(MPI_Comm comm)
{
    struct pool pool = {0};
    struct transport_buffers buffers = {.context = &pool, .take = take, .give = give, .broken = broken};
    char text[1024] = "";
    int opened = transport_open(&pool.transport, &comm, &buffers, text, (int)sizeof text);
    while (opened == 0)
        opened = transport_opened(pool.transport, text, (int)sizeof text);
    REQUIRE(opened == -1);
    printf("rank %d: %s\n", world_rank, text);
    fflush(stdout);
}

static void test_null(void)
{
    print_refusal(MPI_COMM_NULL);
}

static void test_intercommunicator(void)
{
    MPI_Comm half, inter;
    int side = world_rank % 2;
    MPI_Comm_split(MPI_COMM_WORLD, side, 0, &half);
    MPI_Intercomm_create(half, 0, MPI_COMM_WORLD, 1 - side, 7, &inter);
    print_refusal(inter);
    MPI_Comm_free(&inter);
    MPI_Comm_free(&half);
}

static void test_level(void)
{
    print_refusal(MPI_COMM_WORLD);
}

static void test_no_such_rank(void)
{
    struct pool pool;
    open_on(MPI_COMM_WORLD, &pool);
    if (world_rank == 0)
        send_number(&pool, world_size, 0, sizeof(struct head), NULL);
    while (true)
        sleep(1);
}

static void test_too_large(void)
{
    struct pool pool;
    open_on(MPI_COMM_WORLD, &pool);
    char byte;
    transport_send(pool.transport, 0, &byte, UINT64_C(1) << 31, UINT64_C(1) << 31);
}

/* ---- costs ----------------------------------------------------------------------------------------------------- */

static double now_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return 1e6 * (double)now.tv_sec + 1e-3 * (double)now.tv_nsec;
}

static int compare(const void *a, const void *b)
{
    return (*(const double *)a > *(const double *)b) - (*(const double *)a < *(const double *)b);
}

/* Medians of an empty receive and of round trips between ranks 0 and 1, beside plain MPI's. */
static void test_cost(void)
{
    enum { ROUNDS = 1001 };
    static const uint64_t sizes[] = {sizeof(struct head), 4096, 65536, 1 << 20};
    static double times[ROUNDS], plain[ROUNDS];
    struct pool pool;
    uint64_t next[2] = {0, 0}, number = 0;
    void *buffer = malloc(1 << 20), *token;
    uint64_t bytes;
    open_on(MPI_COMM_WORLD, &pool);
    memset(buffer, 1, 1 << 20);
    for (int i = 0; i < ROUNDS; i++) {
        double start_us = now_us();
        for (int k = 0; k < 10; k++)
            REQUIRE(transport_receive(pool.transport, &buffer, &bytes, &token) < 0);
        times[i] = (now_us() - start_us) / 10;
    }
    qsort(times, ROUNDS, sizeof times[0], compare);
    if (world_rank == 0)
        printf("empty receive %.2f us\n", times[ROUNDS / 2]);
    for (int s = 0; s < 4; s++) {
        for (int i = 0; i < ROUNDS; i++) {
            double start_us = now_us();
            for (int turn = 0; turn < 2; turn++)
                if (turn == world_rank)
                    send_number(&pool, 1 - world_rank, number, sizes[s], NULL);
                else
                    while (!receive_next(&pool, next))
                        ;
            number++;
            times[i] = now_us() - start_us;
            start_us = now_us();
            for (int turn = 0; turn < 2; turn++)
                if (turn == world_rank)
                    MPI_Send(buffer, (int)sizes[s], MPI_BYTE, 1 - world_rank, 5, MPI_COMM_WORLD);
                else
                    MPI_Recv(buffer, (int)sizes[s], MPI_BYTE, 1 - world_rank, 5, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
            plain[i] = now_us() - start_us;
        }
        qsort(times, ROUNDS, sizeof times[0], compare);
        qsort(plain, ROUNDS, sizeof plain[0], compare);
        if (world_rank == 0)
            printf("%7llu bytes: round trip %.1f us with filling and checking, MPI %.1f us\n",
                   (unsigned long long)sizes[s], times[ROUNDS / 2], plain[ROUNDS / 2]);
    }
    free(buffer);
    close_and_check(&pool);
}

static const struct {
    const char *name;
    void (*run)(void);
} tests[] = {
    {"random", test_random},
    {"part", test_part},
    {"flood", test_flood},
    {"unreceived", test_unreceived},
    {"overtaking", test_overtaking},
    {"collectives", test_collectives},
    {"null", test_null},
    {"intercommunicator", test_intercommunicator},
    {"level", test_level},
    {"no-such-rank", test_no_such_rank},
    {"too-large", test_too_large},
    {"cost", test_cost},
};

int main(int argc, char **argv)
{
    int provided, worst = 0, good = 0;
    const char *what = argc > 1 ? argv[1] : "";
    seed_of_chaos = argc > 2 ? strtoull(argv[2], NULL, 10) : 0;
    MPI_Init_thread(&argc, &argv, strcmp(what, "level") == 0 ? MPI_THREAD_FUNNELED : MPI_THREAD_MULTIPLE, &provided);
    MPI_Comm_rank(MPI_COMM_WORLD, &world_rank);
    MPI_Comm_size(MPI_COMM_WORLD, &world_size);
    for (size_t i = 0; i < sizeof tests / sizeof tests[0]; i++)
        if (strcmp(what, tests[i].name) == 0) {
            tests[i].run();
            good = 1;
        }
    MPI_Allreduce(&good, &worst, 1, MPI_INT, MPI_MIN, MPI_COMM_WORLD);
    if (world_rank == 0 && worst)
        puts("fine");
    MPI_Finalize();
    return worst ? 0 : 2;
}
