// Which kernel table to use: the best the processor supports, or a lower one named by SPARSEJAX_ISA.
#ifndef SPARSEJAX_RUNTIME_ISA_H_
#define SPARSEJAX_RUNTIME_ISA_H_

#include <string>
#include <vector>

#include "../simd/table.h"

namespace sparsejax {

// Names of the instruction sets this processor can run, best first.
std::vector<std::string> SupportedIsas();

// Chooses the table; called once when the module loads. Throws std::invalid_argument for an unknown or unsupported
// name in SPARSEJAX_ISA.
void SelectTable();

// The table chosen by SelectTable.
const KernelTable& Table();

}  // namespace sparsejax

#endif  // SPARSEJAX_RUNTIME_ISA_H_
