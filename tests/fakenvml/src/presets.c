/* The GPUs that a state file can name. Totals are what nvidia-smi prints as memory.total, in MiB. */
#include "core.h"

// clang-format off
/* key, name, MiB, reserved MiB, PCI device, PCI subsystem, compute capability, architecture, brand, SMs, cores, bus,
 * watts, NVLinks, NVLink version, MIG instances, ECC, remaps rows, event types, PCIe generation, SM clock, memory clock */
const preset_t PRESETS[] = {
    {"h100-sxm", "NVIDIA H100 80GB HBM3", 81559, 551, 0x233010DE, 0x16C110DE, 90, 9, 14, 132, 16896, 5120,
     700, 18, 6, 7, 1, 1, 0x1F9B, 5, 1980, 2619},
    {"h100-pcie", "NVIDIA H100 PCIe", 81559, 551, 0x233110DE, 0x162610DE, 90, 9, 14, 114, 14592, 5120,
     350, 12, 6, 7, 1, 1, 0x1F9B, 5, 1755, 1593},
    {"h100-nvl", "NVIDIA H100 NVL", 95830, 551, 0x232110DE, 0x183910DE, 90, 9, 14, 132, 16896, 6016,
     400, 12, 6, 7, 1, 1, 0x1F9B, 5, 1785, 2619},
    {"h200", "NVIDIA H200", 143771, 551, 0x233510DE, 0x18BE10DE, 90, 9, 14, 132, 16896, 6144,
     700, 18, 6, 7, 1, 1, 0x1F9B, 5, 1980, 3201},
    {"b200", "NVIDIA B200", 183359, 551, 0x290110DE, 0x199910DE, 100, 10, 14, 148, 18944, 8192,
     1000, 18, 7, 7, 1, 1, 0x1F9B, 6, 1965, 3996},
    {"a100-40g", "NVIDIA A100-SXM4-40GB", 40960, 563, 0x20B010DE, 0x134F10DE, 80, 7, 14, 108, 6912, 5120,
     400, 12, 4, 7, 1, 1, 0x1F9B, 4, 1410, 1215},
    {"a100-80g", "NVIDIA A100-SXM4-80GB", 81920, 563, 0x20B210DE, 0x147F10DE, 80, 7, 14, 108, 6912, 5120,
     400, 12, 4, 7, 1, 1, 0x1F9B, 4, 1410, 1593},
    {"a100-80g-pcie", "NVIDIA A100 80GB PCIe", 81920, 563, 0x20B510DE, 0x153310DE, 80, 7, 14, 108, 6912, 5120,
     300, 12, 4, 7, 1, 1, 0x1F9B, 4, 1410, 1512},
    {"a30", "NVIDIA A30", 24576, 563, 0x20B710DE, 0x153210DE, 80, 7, 14, 56, 3584, 3072,
     165, 4, 4, 4, 1, 1, 0x1F9B, 4, 1440, 1215},
    {"a10", "NVIDIA A10", 23028, 301, 0x223610DE, 0x148210DE, 86, 7, 14, 72, 9216, 384,
     150, 0, 0, 0, 1, 1, 0x1F9B, 4, 1695, 6251},
    {"a10g", "NVIDIA A10G", 23028, 301, 0x223710DE, 0x152F10DE, 86, 7, 14, 80, 10240, 384,
     300, 0, 0, 0, 1, 1, 0x1F9B, 4, 1710, 6251},
    {"l4", "NVIDIA L4", 23034, 339, 0x27B810DE, 0x16EE10DE, 89, 8, 14, 58, 7424, 192,
     72, 0, 0, 0, 1, 1, 0x1F9B, 4, 2040, 6251},
    {"l40s", "NVIDIA L40S", 46068, 500, 0x26B910DE, 0x185110DE, 89, 8, 14, 142, 18176, 384,
     350, 0, 0, 0, 1, 1, 0x1F9B, 4, 2520, 9001},
    {"v100-32g", "Tesla V100-SXM2-32GB", 32768, 265, 0x1DB510DE, 0x124910DE, 70, 5, 2, 80, 5120, 4096,
     300, 6, 2, 0, 1, 0, 0x1F, 3, 1530, 877},
    {"t4", "Tesla T4", 15360, 429, 0x1EB810DE, 0x12A210DE, 75, 6, 2, 40, 2560, 256,
     70, 0, 0, 0, 1, 0, 0x9F, 3, 1590, 5001},
    {"rtx4090", "NVIDIA GeForce RTX 4090", 24564, 398, 0x268410DE, 0x167C10DE, 89, 8, 5, 128, 16384, 384,
     450, 0, 0, 0, 0, 0, 0x9F, 4, 3105, 10501},
    {"rtx3090", "NVIDIA GeForce RTX 3090", 24576, 307, 0x220410DE, 0x147D10DE, 86, 7, 5, 82, 10496, 384,
     350, 4, 5, 0, 0, 0, 0x9F, 4, 2100, 9751},
    {"rtxa6000", "NVIDIA RTX A6000", 49140, 400, 0x223010DE, 0x145910DE, 86, 7, 13, 84, 10752, 384,
     300, 4, 5, 0, 1, 1, 0x9F, 4, 2100, 8001},
    {"gtx1660s", "NVIDIA GeForce GTX 1660 SUPER", 6144, 201, 0x21C410DE, 0x13F310DE, 75, 6, 5, 22, 1408, 192,
     125, 0, 0, 0, 0, 0, 0x9F, 3, 2100, 7001},
    {NULL},
};
// clang-format on

const preset_t *preset_of(const jv *device) {
    const char *key = j_str(device, "preset", "h100-sxm");
    for (const preset_t *preset = PRESETS; preset->key; preset++)
        if (!strcmp(preset->key, key)) return preset;
    return &PRESETS[0];
}
