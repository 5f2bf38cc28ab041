// SPDX-License-Identifier: Apache-2.0
/* The numbers of DNS, by the names that the RFCs give them. */
#ifndef DNS_DNS_H
#define DNS_DNS_H

enum {
    DNS_HEADER_SIZE = 12,
    DNS_MESSAGE_MAX = 65535,
    DNS_TTL_MAX = 0x7fffffff,
    DNS_NAME_MAX = 255, /* octets on the wire, root label included (RFC 1035 3.1) */
    DNS_LABEL_MAX = 63,
    DNS_POINTER_MARK =
        0xc0, /* the octet with which a compression pointer begins, or a larger one */
    DNS_POINTER_MASK = 0x3fff,
    DNS_POINTER_REACH = 16384, /* octets that a compression pointer of 14 bits leads to */
    DNS_POINTER_SIZE = 2,
    DNS_QUESTION_TAIL = 4,     /* QTYPE and QCLASS */
    DNS_UDP_DEFAULT = 512,     /* RFC 1035 4.2.1 */
    DNS_UDP_ADVERTISED = 1232, /* RFC 9715 */
    DNS_RECORD_FIXED = 10,     /* TYPE, CLASS, TTL and RDLENGTH */
    DNS_OPT_FIXED = 11,        /* an OPT record without options */
    DNS_OPTION_FIXED = 4,      /* an option's code and length */
    DNS_OPTIONS_MAX = 32,      /* EDNS options that a query may carry (FAULTS A11) */
};

/* Header flags as bits of the second 16-bit word. */
enum {
    DNS_FLAG_QR = 0x8000,
    DNS_OPCODE_MASK = 0x7800,
    DNS_OPCODE_SHIFT = 11,
    DNS_FLAG_AA = 0x0400,
    DNS_FLAG_TC = 0x0200,
    DNS_FLAG_RD = 0x0100,
    DNS_FLAG_RA = 0x0080,
    DNS_FLAG_Z = 0x0040,
    DNS_FLAG_AD = 0x0020,
    DNS_FLAG_CD = 0x0010,
    DNS_RCODE_MASK = 0x000f,
    DNS_EDNS_FLAG_DO = 0x8000, /* in the TTL field of OPT (RFC 3225) */
};

enum rcode {
    RCODE_NOERROR = 0,
    RCODE_FORMERR = 1,
    RCODE_SERVFAIL = 2,
    RCODE_NXDOMAIN = 3,
    RCODE_NOTIMP = 4,
    RCODE_REFUSED = 5,
    RCODE_YXDOMAIN = 6,
    RCODE_BADVERS = 16,
    RCODE_BADCOOKIE = 23,
};

enum dns_class {
    CLASS_IN = 1,
    CLASS_CH = 3,
};

enum dns_type {
    TYPE_A = 1,
    TYPE_NS = 2,
    TYPE_MD = 3,
    TYPE_MF = 4,
    TYPE_CNAME = 5,
    TYPE_SOA = 6,
    TYPE_MB = 7,
    TYPE_MG = 8,
    TYPE_MR = 9,
    TYPE_PTR = 12,
    TYPE_HINFO = 13,
    TYPE_MINFO = 14,
    TYPE_MX = 15,
    TYPE_TXT = 16,
    TYPE_RP = 17,
    TYPE_AFSDB = 18,
    TYPE_RT = 21,
    TYPE_SIG = 24,
    TYPE_PX = 26,
    TYPE_AAAA = 28,
    TYPE_NXT = 30,
    TYPE_SRV = 33,
    TYPE_NAPTR = 35,
    TYPE_KX = 36,
    TYPE_DNAME = 39,
    TYPE_OPT = 41,
    TYPE_RRSIG = 46,
    TYPE_NSEC = 47,
    TYPE_NSEC3 = 50,
    TYPE_TKEY = 249,
    TYPE_TSIG = 250,
    TYPE_IXFR = 251,
    TYPE_AXFR = 252,
    TYPE_MAILB = 253,
    TYPE_MAILA = 254,
    TYPE_ANY = 255,
};

enum edns_option {
    OPTION_NSID = 3,
    OPTION_CLIENT_SUBNET = 8,
    OPTION_COOKIE = 10,
    OPTION_KEEPALIVE = 11,      /* RFC 7828 */
    OPTION_PADDING = 12,        /* RFC 7830 */
    OPTION_EXTENDED_ERROR = 15, /* RFC 8914 */
};

/* RFC 8914 5.2 */
enum extended_error_code {
    EDE_OTHER = 0,
    EDE_STALE_ANSWER = 3,
    EDE_CACHED_ERROR = 13,
    EDE_PROHIBITED = 18,
    EDE_STALE_NXDOMAIN_ANSWER = 19,
    EDE_NO_REACHABLE_AUTHORITY = 22,
    EDE_NETWORK_ERROR = 23,
};

#endif
