// SPDX-License-Identifier: Apache-2.0
/* Certificates made by the tests, good and bad ones. */
#ifndef SUPPORT_CERTIFICATES_H
#define SUPPORT_CERTIFICATES_H

#include "test.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <openssl/ec.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>

enum { DAY_S = 86400 };

struct identity {
    X509 *certificate;
    EVP_PKEY *key;
};

struct identity_form {
    const char *common_name;
    const char *san;               /* "DNS:dns.example", "IP:192.0.2.1"; NULL: none */
    const struct identity *issuer; /* NULL: self-signed */
    long not_before_s;             /* from now; 0: a day ago */
    long not_after_s;              /* from now; 0: in a year */
    bool is_ca;
    const char *usage;     /* extended key usage; NULL: any */
    size_t padding_length; /* octets of a comment that make it large */
};

static inline void add_extension(X509 *certificate, int nid, const char *value)
{
    X509V3_CTX context;
    X509V3_set_ctx(&context, certificate, certificate, NULL, NULL, 0);
    X509_EXTENSION *extension = X509V3_EXT_conf_nid(NULL, &context, nid, value);
    assert_non_null(extension);
    assert_int_equal(X509_add_ext(certificate, extension, -1), 1);
    X509_EXTENSION_free(extension);
}

static inline void add_padding(X509 *certificate, size_t length)
{
    char *text = malloc(length + 1);
    assert_non_null(text);
    memset(text, 'x', length);
    text[length] = '\0';
    add_extension(certificate, NID_netscape_comment, text);
    free(text);
}

static inline struct identity identity_make(const struct identity_form *form)
{
    static long serial;
    struct identity identity = {.certificate = X509_new(), .key = EVP_EC_gen("P-256")};
    const struct identity *issuer = form->issuer ? form->issuer : &identity;
    X509 *certificate = identity.certificate;
    assert_non_null(certificate);
    assert_non_null(identity.key);
    X509_set_version(certificate, X509_VERSION_3);
    ASN1_INTEGER_set(X509_get_serialNumber(certificate), ++serial);
    X509_gmtime_adj(X509_getm_notBefore(certificate),
                    form->not_before_s ? form->not_before_s : -DAY_S);
    X509_gmtime_adj(X509_getm_notAfter(certificate),
                    form->not_after_s ? form->not_after_s : 365L * DAY_S);
    X509_NAME_add_entry_by_txt(X509_get_subject_name(certificate), "CN", MBSTRING_ASC,
                               (const unsigned char *)form->common_name, -1, -1, 0);
    X509_set_issuer_name(certificate, X509_get_subject_name(issuer->certificate));
    X509_set_pubkey(certificate, identity.key);
    if (form->is_ca)
        add_extension(certificate, NID_basic_constraints, "critical,CA:TRUE");
    if (form->usage)
        add_extension(certificate, NID_ext_key_usage, form->usage);
    if (form->san)
        add_extension(certificate, NID_subject_alt_name, form->san);
    if (form->padding_length > 0)
        add_padding(certificate, form->padding_length);
    assert_true(X509_sign(certificate, issuer->key, EVP_sha256()) > 0);
    return identity;
}

static inline void identity_free(struct identity *identity)
{
    X509_free(identity->certificate);
    EVP_PKEY_free(identity->key);
    *identity = (struct identity){0};
}

/* SHA-256 of the SubjectPublicKeyInfo, reckoned another way than the product does. */
static inline void identity_pin(const struct identity *identity, uint8_t pin[static 32])
{
    uint8_t *bytes = NULL;
    const int length = i2d_PUBKEY(identity->key, &bytes);
    assert_true(length > 0);
    assert_int_equal(EVP_Digest(bytes, (size_t)length, pin, NULL, EVP_sha256(), NULL), 1);
    OPENSSL_free(bytes);
}

enum { PATH_SIZE = 32 };

/* A new file with the text given; the caller removes it. */
static inline void write_file(char path[static PATH_SIZE], const char *text)
{
    strcpy(path, "/tmp/dnsproxy-test-XXXXXX");
    const int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    close(fd);
}

static inline void write_certificate(char path[static PATH_SIZE], const struct identity *identity)
{
    write_file(path, "");
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_int_equal(PEM_write_X509(file, identity->certificate), 1);
    fclose(file);
}

#endif
