// Chooses the kernel table: that of the best instruction set of the processor, or of the one named by SPARSEJAX_ISA.
#ifndef SPARSEJAX_RUNTIME_ISA_H_
#define SPARSEJAX_RUNTIME_ISA_H_

#include <string>
#include <vector>

#include "../simd/table.h"

namespace sparsejax {

// Names of the instruction sets that this processor supports, best first.
std::vector<std::string> SupportedIsas();

// Chooses the table. Called once, when the module is loaded. Throws std::invalid_argument if SPARSEJAX_ISA has an
// unknown name or one that the processor does not support.
void SelectTable();

// The table chosen by SelectTable.
const KernelTable& Table();

// Whether gathering takes longer than a load for each lane.
bool HasSlowGathers();

}  // namespace sparsejax

#endif  // SPARSEJAX_RUNTIME_ISA_H_
