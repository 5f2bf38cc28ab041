// SPDX-License-Identifier: Apache-2.0
/* Accounts of clients: connections, rates, queries that wait.
 *
 * Connections are counted exactly, for each client. Where a client that is taken for another loses
 * nothing but a retry over TCP, addresses are hashed to buckets, and two that meet in one share
 * what it has: there is nothing to run full, so a flood from forged addresses cannot push out what
 * is known about its victim. Every hash is keyed: nobody can choose whom to meet (FAULTS I9).
 *
 * The address of a datagram may be forged. Were all answered that had gathered in somebody's name
 * when a slow answer comes at last, he would be hit by them in one burst (DNSBomb, CVE-2024-33655).
 * Beyond limits.udp-queries-per-address a client is sent to TCP, where a forged one cannot follow
 * (FAULTS I5). While no more than half of the limit wait, of all clients together, none has more,
 * and nobody is counted: a forwarded query need not pay for it. Of those that come when so many
 * wait each client may have the other half. No reply to loopback leaves the host: it may have any
 * number of them.
 *
 * Who gives way is found by counts: of each network (all are looked at, 32 KiB), of each client in
 * it (256 at most), and of each parent suffix of that client. The last is looked for among its
 * oldest queries alone, which are many only when others of its suffixes have few. */
#include "query/clients.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/list.h"
#include "base/numbers.h"
#include "base/pool.h"
#include "base/siphash.h"

enum {
    NETWORKS = 4096, /* two that meet are one */
    RATES = 16384,   /* 128 KiB, only with limits.udp-rate */
    CLIENT_V4 = 32,
    CLIENT_V6 = 64,
    NETWORK_V4 = 24,
    NETWORK_V6 = 56,
    REFUSED_ACCOUNTS = 1, /* of a connection that is one too many */
    SUFFIXES = 4096,
    CHOICE_MAX = 64, /* oldest queries of a client that are looked at */
};

/* What is counted of each account, and of each network. */
enum kind {
    HELD,        /* queries that have waited for long */
    CONNECTIONS, /* now open */
    CHARGE,      /* of these, bytes */
    KINDS
};

/* Given back when the last of what it has is gone. */
struct account {
    struct list link; /* in its network */
    struct prefix address;
    struct list held; /* of places, the oldest first */
    struct list seats;
    size_t has[KINDS];
    uint32_t stream_queries; /* of its connections, waiting */
    uint16_t network;
};

struct clients {
    const struct config *config;
    const struct snapshot *snapshot;
    struct siphash_key key;
    struct pool accounts;
    struct list networks[NETWORKS]; /* of accounts: 256 of each network at most */
    size_t has[KINDS];
    size_t networks_have[KINDS][NETWORKS];
    uint32_t held_of_suffix[SUFFIXES];
    uint64_t accepted_until_ns; /* of limits.tcp-accept-rate */
    uint64_t *replied_until_ns; /* of limits.udp-rate, by network; NULL: it is 0 */
    uint64_t datagram_key;      /* odd */
    size_t counted_from;        /* queries waiting; SIZE_MAX: no datagrams are counted */
    uint32_t counted_max;       /* in a bucket */
    uint32_t counted[PLACE_BUCKETS];
};

/* --- Accounts --- */

static uint64_t hash_network(const struct clients *clients, const struct address *address)
{
    const struct prefix network = prefix_of(address, NETWORK_V4, NETWORK_V6);
    return siphash(&clients->key, network.bits, sizeof(network.bits));
}

static uint16_t network_of(const struct clients *clients, const struct address *address)
{
    return hash_network(clients, address) % NETWORKS;
}

/* NULL: the client has none. */
static struct account *find_account(struct clients *clients, uint16_t network,
                                    const struct prefix *client)
{
    LIST_EACH (struct account, account, &clients->networks[network], link)
        if (memcmp(account->address.bits, client->bits, sizeof(client->bits)) == 0)
            return account;
    return NULL;
}

/* The client's account, a new one if it has none. There are as many as can be needed. */
static struct account *account_of(struct clients *clients, const struct address *address)
{
    const struct prefix client = prefix_of(address, CLIENT_V4, CLIENT_V6);
    const uint16_t network = network_of(clients, address);
    struct account *account = find_account(clients, network, &client);
    if (account)
        return account;
    account = pool_take(&clients->accounts);
    assert(account);
    *account = (struct account){.address = client, .network = network};
    list_init(&account->held);
    list_init(&account->seats);
    list_append(&clients->networks[network], &account->link);
    return account;
}

static void let_go(struct clients *clients, struct account *account)
{
    assert(account->network < NETWORKS);
    if (account->has[CONNECTIONS] > 0 || account->has[HELD] > 0)
        return;
    list_remove(&account->link);
    pool_give(&clients->accounts, account);
}

static void add(struct clients *clients, struct account *account, enum kind kind, size_t amount)
{
    account->has[kind] += amount;
    clients->has[kind] += amount;
    clients->networks_have[kind][account->network] += amount;
}

static void subtract(struct clients *clients, struct account *account, enum kind kind,
                     size_t amount)
{
    assert(account->has[kind] >= amount && clients->has[kind] >= amount);
    assert(clients->networks_have[kind][account->network] >= amount);
    account->has[kind] -= amount;
    clients->has[kind] -= amount;
    clients->networks_have[kind][account->network] -= amount;
}

/* Of the network that has most of it the account that has most; NULL when nobody has any. */
static struct account *largest_of(const struct clients *clients, enum kind kind)
{
    const size_t *networks = clients->networks_have[kind];
    size_t network = 0;
    if (clients->has[kind] == 0)
        return NULL;
    for (size_t i = 1; i < NETWORKS; i++)
        if (networks[i] > networks[network])
            network = i;
    struct account *largest = NULL;
    LIST_EACH (struct account, account, &clients->networks[network], link)
        if (!largest || account->has[kind] > largest->has[kind])
            largest = account;
    assert(largest && largest->has[kind] > 0);
    return largest;
}

uint64_t clients_identify(const struct address *address)
{
    const struct prefix client = prefix_of(address, CLIENT_V4, CLIENT_V6);
    return (client.bits[0] ^ client.bits[1]) | UINT64_C(1) << 63;
}

/* --- Rates --- */

/* A second's worth may come at once. */
static bool fits(uint64_t *busy_until_ns, uint32_t per_second, uint64_t now)
{
    assert(per_second > 0);
    const uint64_t interval_ns = NANOSECONDS_PER_SECOND / per_second;
    return rate_fits(busy_until_ns, now, interval_ns, NANOSECONDS_PER_SECOND - interval_ns);
}

bool clients_may_reply(struct clients *clients, const struct address *address, uint64_t now)
{
    if (!clients->replied_until_ns)
        return true;
    uint64_t *until_ns = &clients->replied_until_ns[hash_network(clients, address) % RATES];
    return fits(until_ns, clients->config->limits.udp_rate, now);
}

/* --- Connections --- */

/* Else two that take all they can get would close each other's connections for ever. */
static bool would_have_less(const struct clients *clients, const struct account *newcomer,
                            const struct account *account)
{
    if (newcomer->network == account->network)
        return newcomer->has[CONNECTIONS] + 1 < account->has[CONNECTIONS];
    const size_t *networks = clients->networks_have[CONNECTIONS];
    return networks[newcomer->network] + 1 < networks[account->network];
}

static bool has_young_query(const struct seat *seat, uint64_t now)
{
    return now - seat->asked_ns < YOUNG_NS;
}

static struct seat *choose_seat(const struct clients *clients, const struct account *newcomer,
                                uint64_t now)
{
    const struct account *account = largest_of(clients, CONNECTIONS);
    assert(account);
    if (!would_have_less(clients, newcomer, account))
        return NULL;
    size_t count = 0;
    struct seat *still = NULL;
    LIST_EACH (struct seat, seat, &account->seats, link) {
        if (seat->is_idle)
            return seat;
        if (now - seat->moved_ns >= YOUNG_NS &&
            (!still || (has_young_query(still, now) && !has_young_query(seat, now))))
            still = seat;
        if (++count == CHOICE_MAX)
            break;
    }
    return still;
}

/* False when there is no room for one more, nor anybody who gives way. */
static bool find_seat(const struct clients *clients, const struct account *newcomer, uint64_t now,
                      struct seat **gives_way)
{
    assert(clients->has[CONNECTIONS] <= clients->config->limits.tcp_clients);
    *gives_way = NULL;
    if (clients->has[CONNECTIONS] < clients->config->limits.tcp_clients)
        return true;
    *gives_way = choose_seat(clients, newcomer, now);
    return *gives_way != NULL;
}

bool clients_connect(struct clients *clients, struct seat *seat, const struct address *address,
                     uint64_t now, struct seat **gives_way)
{
    assert(seat && gives_way);
    const uint32_t rate = clients->snapshot->limits.tcp_accept_rate;
    struct account *account = account_of(clients, address);
    if (account->has[CONNECTIONS] >= clients->snapshot->limits.tcp_clients_per_address ||
        (rate > 0 && !fits(&clients->accepted_until_ns, rate, now)) ||
        !find_seat(clients, account, now, gives_way)) {
        let_go(clients, account);
        return false;
    }
    *seat = (struct seat){.account = account, .moved_ns = now, .is_idle = true};
    list_append(&account->seats, &seat->link);
    add(clients, account, CONNECTIONS, 1);
    return true;
}

void clients_disconnect(struct clients *clients, struct seat *seat)
{
    struct account *account = seat->account;
    if (!account)
        return;
    assert(list_is_linked(&seat->link));
    clients_charge(clients, seat, 0);
    list_remove(&seat->link);
    seat->account = NULL;
    subtract(clients, account, CONNECTIONS, 1);
    assert(account->has[CONNECTIONS] > 0 ||
           (account->stream_queries == 0 && account->has[CHARGE] == 0));
    let_go(clients, account);
}

void clients_move(struct seat *seat, bool is_idle, uint64_t now)
{
    assert(seat->account && now >= seat->moved_ns);
    seat->is_idle = is_idle;
    seat->moved_ns = now;
    list_remove(&seat->link);
    list_append(&seat->account->seats, &seat->link);
}

void clients_begin_stream_query(struct seat *seat, uint64_t now)
{
    assert(seat->account && seat->account->has[CONNECTIONS] > 0);
    seat->account->stream_queries++;
    seat->asked_ns = now;
}

void clients_end_stream_query(struct seat *seat)
{
    assert(seat->account && seat->account->stream_queries > 0);
    seat->account->stream_queries--;
}

static const struct account *look_up(struct clients *clients, const struct address *address)
{
    const struct prefix client = prefix_of(address, CLIENT_V4, CLIENT_V6);
    return find_account(clients, network_of(clients, address), &client);
}

bool clients_holds_back(struct clients *clients, const struct address *address,
                        size_t waiting_count)
{
    const size_t eighth = clients->config->limits.queries / 8;
    if (waiting_count < clients->config->limits.queries - eighth)
        return false;
    const struct account *account = look_up(clients, address);
    return account && account->stream_queries > eighth;
}

/* --- Output --- */

void clients_charge(struct clients *clients, struct seat *seat, size_t bytes)
{
    assert(seat->account);
    subtract(clients, seat->account, CHARGE, seat->charge);
    add(clients, seat->account, CHARGE, bytes);
    seat->charge = bytes;
}

struct seat *clients_most_charged(struct clients *clients)
{
    struct seat *most = NULL;
    const struct account *account = largest_of(clients, CHARGE);
    if (!account)
        return NULL;
    LIST_EACH (struct seat, seat, &account->seats, link)
        if (!most || seat->charge > most->charge)
            most = seat;
    assert(most && most->charge > 0);
    return most;
}

/* --- Queries that wait --- */

/* 127.0.0.0/8 in its IPv4-mapped form, and ::1. */
static bool is_loopback(const uint64_t bits[static 2])
{
    return bits[0] == 0 && (bits[1] >> 24 == 0xffff7f || bits[1] == 1);
}

/* Who finds addresses that meet has won little, so it need not be SipHash; one multiplication alone
 * would, with some keys, send a whole network to a few buckets. */
static uint64_t hash_quickly(uint64_t number, uint64_t key)
{
    uint64_t mixed = number * key;
    mixed ^= mixed >> 32;
    return mixed * key;
}

/* False when no more of its client may wait. Apart: as a rule so few wait that nobody is counted.
 */
[[gnu::noinline]] static bool count_datagram(struct clients *clients, struct place *place,
                                             const struct address *address)
{
    uint64_t bits[2];
    address_bits(address, bits);
    if (is_loopback(bits))
        return true;
    const uint64_t client = bits[0] ? bits[0] : bits[1]; /* of IPv6 the /64 */
    const uint64_t bucket = hash_quickly(client, clients->datagram_key) >> (64 - PLACE_BITS);
    if (clients->counted[bucket] >= clients->counted_max)
        return false;
    clients->counted[bucket]++;
    place->counted = (uint16_t)bucket;
    return true;
}

bool clients_enter(struct clients *clients, struct place *place, const struct address *address,
                   bool is_datagram, size_t waiting_count)
{
    place->account = NULL;
    place->counted = PLACE_UNCOUNTED;
    if (!is_datagram || waiting_count < clients->counted_from)
        return true;
    return count_datagram(clients, place, address);
}

/* --- Those that have waited for long --- */

/* What random names under one have in common. */
static uint16_t hash_suffix(const struct clients *clients, const struct account *account,
                            const struct question *question)
{
    const size_t label = question->name[0] > 0 ? 1U + question->name[0] : 0;
    assert(label < question->name_length);
    return siphash_with(&clients->key, (uintptr_t)account, question->name + label,
                        question->name_length - label) %
           SUFFIXES;
}

void clients_hold(struct clients *clients, struct place *place, const struct address *address,
                  const struct question *question)
{
    assert(question->name_length > 0 && clients->has[HELD] < clients->config->limits.queries);
    assert(!place->account);
    struct account *account = account_of(clients, address);
    place->account = account;
    place->suffix = hash_suffix(clients, account, question);
    list_init(&place->link);
    list_append(&account->held, &place->link);
    add(clients, account, HELD, 1);
    clients->held_of_suffix[place->suffix]++;
}

static void let_fall(struct clients *clients, struct place *place)
{
    struct account *account = place->account;
    assert(clients->held_of_suffix[place->suffix] > 0);
    list_remove(&place->link);
    subtract(clients, account, HELD, 1);
    clients->held_of_suffix[place->suffix]--;
    place->account = NULL;
    let_go(clients, account);
}

void clients_leave(struct clients *clients, struct place *place)
{
    if (place->account)
        let_fall(clients, place);
    if (place->counted == PLACE_UNCOUNTED)
        return;
    assert(place->counted < PLACE_BUCKETS && clients->counted[place->counted] > 0);
    clients->counted[place->counted]--;
}

bool clients_has_held(const struct clients *clients)
{
    return clients->has[HELD] > 0;
}

static size_t held_by(struct clients *clients, const struct address *address)
{
    const struct account *account = look_up(clients, address);
    return account ? account->has[HELD] : 0;
}

struct place *clients_choose(struct clients *clients, const struct address *address,
                             bool is_datagram)
{
    const struct account *account = largest_of(clients, HELD);
    if (!account || (!is_datagram && held_by(clients, address) >= account->has[HELD]))
        return NULL;
    struct place *chosen = NULL;
    size_t count = 0;
    LIST_EACH (struct place, place, &account->held, link) {
        if (!chosen ||
            clients->held_of_suffix[place->suffix] > clients->held_of_suffix[chosen->suffix])
            chosen = place;
        if (++count == CHOICE_MAX)
            break;
    }
    assert(chosen);
    return chosen;
}

/* --- From open to close --- */

void clients_reload(struct clients *clients, const struct snapshot *snapshot)
{
    const uint32_t of_client = snapshot->limits.udp_queries_per_address;
    clients->snapshot = snapshot;
    clients->counted_from = of_client > 0 ? of_client / 2 : SIZE_MAX;
    clients->counted_max = of_client - of_client / 2;
}

enum status clients_open(const struct config *config, struct clients **out)
{
    assert(out);
    struct clients *clients = calloc(1, sizeof(*clients));
    if (!clients)
        return STATUS_SYSTEM;
    clients->config = config;
    clients->key = siphash_random_key();
    clients->datagram_key = siphash_random_key().k0 | 1;
    clients_reload(clients, &config->snapshot);
    for (size_t i = 0; i < NETWORKS; i++)
        list_init(&clients->networks[i]);
    if (config->limits.udp_rate > 0)
        clients->replied_until_ns = calloc(RATES, sizeof(uint64_t));
    if ((config->limits.udp_rate > 0 && !clients->replied_until_ns) ||
        pool_open(&clients->accounts, sizeof(struct account),
                  (size_t)config->limits.tcp_clients + REFUSED_ACCOUNTS + config->limits.queries) !=
            STATUS_OK) {
        clients_close(clients);
        return STATUS_SYSTEM;
    }
    *out = clients;
    return STATUS_OK;
}

void clients_close(struct clients *clients)
{
    if (!clients)
        return;
    assert(clients->has[HELD] == 0 && clients->has[CONNECTIONS] == 0);
    pool_close(&clients->accounts);
    free(clients->replied_until_ns);
    free(clients);
}

size_t clients_ceiling(const struct clients *clients)
{
    const size_t rates = clients->replied_until_ns ? RATES * sizeof(uint64_t) : 0;
    return sizeof(*clients) + rates + pool_ceiling(&clients->accounts);
}
