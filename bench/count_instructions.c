// A plugin for qemu's user mode that counts the guest's instructions, of all threads together, and says
// the number on standard error when the program ends. Built and used by bench/phone.py.
//
// qemu's plugin interface, version 1, as its documentation describes it: declared here, since Debian has
// the emulator without the header.
#include <inttypes.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

typedef uint64_t PluginId;
struct Block;  // a translated run of instructions
enum { ADD = 0 };

extern void qemu_plugin_register_vcpu_tb_trans_cb(PluginId id, void (*translated)(PluginId, struct Block*));
extern size_t qemu_plugin_tb_n_insns(const struct Block* block);
extern void qemu_plugin_register_vcpu_tb_exec_inline(struct Block* block, int operation, void* counter,
                                                     uint64_t amount);
extern void qemu_plugin_register_atexit_cb(PluginId id, void (*end)(PluginId, void*), void* data);

__attribute__((visibility("default"))) int qemu_plugin_version = 1;

static uint64_t counter;

static void translated(PluginId id, struct Block* block) {
    (void)id;
    qemu_plugin_register_vcpu_tb_exec_inline(block, ADD, &counter, qemu_plugin_tb_n_insns(block));
}

static void end(PluginId id, void* data) {
    (void)id;
    (void)data;
    fprintf(stderr, "instructions %" PRIu64 "\n", counter);
}

__attribute__((visibility("default"))) int qemu_plugin_install(PluginId id, const void* info, int count,
                                                               char** arguments) {
    (void)info;
    (void)count;
    (void)arguments;
    qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
    qemu_plugin_register_atexit_cb(id, end, NULL);
    return 0;
}
